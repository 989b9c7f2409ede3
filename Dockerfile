# The rootfs of the managed plugin is one static binary. Both base images are arguments,
# so that it also builds where nothing can be pulled.
ARG GO_IMAGE=golang:1.26
FROM ${GO_IMAGE} AS build
WORKDIR /src
ENV CGO_ENABLED=0 GOTOOLCHAIN=local GOFLAGS=-trimpath
COPY go.mod go.sum ./
RUN go mod download
COPY . .
ARG VERSION=dev
RUN go build -ldflags "-s -w -X main.version=${VERSION}" -o /out/nuage-plugin ./plugin \
 && go build -ldflags "-s -w -X main.version=${VERSION}" -o /out/nuagectl ./cmd/nuagectl

# docker build --target bin: both programs, for dist/build where the host has no Go.
FROM scratch AS bin
COPY --from=build /out/ /

FROM scratch
COPY --from=build /out/nuage-plugin /nuage-plugin
ENTRYPOINT ["/nuage-plugin"]
