# Two commands matter: `make up` sets everything up on this host and runs the
# walk-through; `make test` runs all tests. See README.md.
SHELL := /bin/bash
# The Go that dist/prepare takes where the host has none.
export PATH := $(CURDIR)/.cache/go/bin:$(PATH)
.PHONY: help up down build plugin test check bench kernel clean fleet fleet-down

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-11s %s\n", $$1, $$2}' Makefile

up: ## install, build, enable the plugin, load examples/app1.yaml, walk through it
	dist/prepare
	dist/build
	dist/plugin install
	install -m 0755 bin/nuagectl /usr/local/bin/nuagectl
	nuagectl apply -f examples/app1.yaml
	examples/walkthrough

down: ## undo `make up`: networks, plugin, bridge and nuagectl go; Debian's packages stay
	dist/down

build: ## bin/nuage-plugin and bin/nuagectl
	dist/build

plugin: build ## (re)install the managed plugin from this tree, keeping its state
	dist/plugin install

check: ## what needs no root: format, vet, staticcheck
	@files=$$(find . -name '*.go' -not -path './.*' | xargs gofmt -l) && [ -z "$$files" ] || { echo "gofmt would change: $$files"; exit 1; }
	go vet ./...
	go tool staticcheck ./...

test: ## all tests: package, host and fleet level (root; see README.md)
	dist/prepare test
	$(MAKE) check
	go test -race -timeout 15m $$(go list ./... | grep -v /test/)
	cd test/vspk && go test ./... # a client of VSD's API, in a module of its own
	cd test/cyclonus && go test -timeout 15m ./... # 230 cases of policies, 110,000 packets; its own module too
	go test -timeout 30m -p 1 ./test/...

bench: ## what attaching, traffic and convergence cost, against Docker's bridge in the same run (SECTIONS="attach traffic convergence")
	dist/prepare test
	go run ./test/bench $(SECTIONS)

kernel: ## tests of packets on the kernel's datapath, in a virtual machine
	dist/prepare test
	test/kernel/run

clean: ## remove what was built
	rm -rf bin rootfs

fleet: ## N private hosts on this machine, joined, one domain ready (make fleet N=3)
	dist/prepare test
	dist/build
	test/fleet/ready $(or $(N),3)

fleet-down: ## end the private hosts and remove what they kept
	test/fleet/down
