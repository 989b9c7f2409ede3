package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"nuage/ovs/ovstest"
)

// TestMain runs the tests in a network namespace of their own: they make links.
func TestMain(m *testing.M) {
	if os.Getenv("NUAGE_TEST_ROOT") == "0" || os.Getenv("NUAGE_TEST_NETNS") != "" {
		os.Exit(m.Run())
	}
	cmd := exec.Command(os.Args[0], os.Args[1:]...)
	cmd.Env = append(os.Environ(), "NUAGE_TEST_NETNS=1")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Run(); err != nil {
		fmt.Fprintln(os.Stderr, "the tests in a network namespace of their own:", err)
		os.Exit(1)
	}
}

// plugin is the whole plugin, running on a private Open vSwitch.
type plugin struct {
	t    *testing.T
	http *http.Client
	stop func()
}

func startPlugin(t *testing.T, o *ovstest.OVS, dir string, env map[string]string) *plugin {
	t.Helper()
	run1 := filepath.Join(dir, "run")
	os.MkdirAll(run1, 0o700)
	if o != nil {
		os.Symlink(o.RunDir, filepath.Join(run1, "openvswitch"))
		if base := filepath.Base(o.DB); base != "db.sock" {
			t.Fatalf("the database's socket is called %s", base)
		}
	}
	socket := filepath.Join(dir, "nuage.sock")
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() {
		ended <- keepRunning(ctx, func(k string) string { return env[k] }, Places{Sockets: []string{socket}, Run: run1, State: filepath.Join(dir, "state")}, quiet())
	}()
	p := &plugin{t: t, http: &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext:       func(context.Context, string, string) (net.Conn, error) { return net.Dial("unix", socket) },
	}}}
	p.stop = func() {
		cancel()
		select {
		case err := <-ended:
			if err != nil {
				t.Errorf("the plugin ended with %v", err)
			}
			ended <- nil
		case <-time.After(30 * time.Second):
			t.Fatal("the plugin does not end")
		}
	}
	t.Cleanup(p.stop)
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		if _, err := net.Dial("unix", socket); err == nil {
			return p
		} else if time.Now().After(end) {
			t.Fatalf("the plugin does not listen: %v", err)
		}
	}
}

// ask sends a verb and returns the answer's fields.
func (p *plugin) ask(verb string, body []byte) map[string]any {
	p.t.Helper()
	resp, err := p.http.Post("http://plugin/"+verb, "application/json", bytes.NewReader(body))
	if err != nil {
		p.t.Fatalf("%s: %v", verb, err)
	}
	defer resp.Body.Close()
	var answer map[string]any
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil {
		p.t.Fatalf("%s: the answer is not JSON: %v", verb, err)
	}
	return answer
}

// line is a call that dockerd made, as the plugin saw it.
type line struct {
	Verb string          `json:"verb"`
	Body json.RawMessage `json:"body"`
}

func recorded(t *testing.T, file string) (calls []line) {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	in := bufio.NewScanner(f)
	in.Buffer(nil, 1<<20)
	for in.Scan() {
		var l line
		if err := json.Unmarshal(in.Bytes(), &l); err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		calls = append(calls, l)
	}
	return calls
}

// replay says what a recorded engine said. The IDs of pools are the plugin's own: a
// recorded one stands for what the plugin answered to the request before it.
type replay struct {
	*plugin
	pools  map[string]string // recorded → answered
	latest string
}

func (r *replay) say(l line) {
	r.t.Helper()
	body := l.Body
	if string(body) == "null" {
		body = nil
	}
	var said struct{ PoolID string }
	json.Unmarshal(body, &said)
	if said.PoolID != "" {
		if r.pools[said.PoolID] == "" {
			r.pools[said.PoolID] = r.latest
		}
		body = bytes.ReplaceAll(body, []byte(said.PoolID), []byte(r.pools[said.PoolID]))
	}
	answer := r.ask(l.Verb, body)
	if answer["Err"] != nil {
		r.t.Errorf("%s %s: %v", l.Verb, body, answer["Err"])
	}
	if id, ok := answer["PoolID"].(string); ok {
		r.latest = id
	}
	if l.Verb == "NetworkDriver.Join" && answer["DisableGatewayService"] != true {
		r.t.Errorf("Join leaves room for docker_gwbridge: %v", answer)
	}
}

var tenants = `
enterprise: DCEnterprise
domains:
  - name: App1
    zones:
      - {name: DockerZone, subnets: [{name: PrivateSubnet, address: 10.85.85.0/24}]}
      - {name: VMZone, subnets: [{name: VMSubnet, address: 10.34.49.0/24}]}
`

// apply loads tenants through the API, as nuagectl does.
func apply(t *testing.T, dir, file string) {
	t.Helper()
	client := http.Client{Transport: &http.Transport{DialContext: func(context.Context, string, string) (net.Conn, error) {
		return net.Dial("unix", filepath.Join(dir, "run/nuage/api.sock"))
	}}}
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		resp, err := client.Post("http://nuage/nuage/v1/apply", "application/yaml", strings.NewReader(file))
		if err == nil {
			resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return
			}
			err = fmt.Errorf("status %s", resp.Status)
		}
		if time.Now().After(end) {
			t.Fatalf("apply: %v", err)
		}
	}
}

var id = strings.Repeat("0123456789abcdef", 4)

func needsRoot(t *testing.T) {
	if os.Getenv("NUAGE_TEST_ROOT") == "0" {
		t.Skip("NUAGE_TEST_ROOT=0: makes links and a switch")
	}
}

// What real engines said, from creating networks to their own restart, is answered without
// an error, once and twice, and leaves nothing behind.
func TestRecordedEngines(t *testing.T) {
	needsRoot(t)
	for _, engine := range []string{"20.10", "29"} {
		for _, times := range []int{1, 2} {
			t.Run(fmt.Sprintf("%s, each call %d times", engine, times), func(t *testing.T) {
				o := ovstest.Start(t, ovstest.Netdev())
				dir := t.TempDir()
				r := replay{startPlugin(t, o, dir, map[string]string{"NUAGE_DATAPATH": "netdev"}), map[string]string{}, ""}
				apply(t, dir, tenants)
				for _, l := range recorded(t, "testdata/engine-"+engine+".jsonl") {
					// A repetition by dockerd has no body; two pool requests with one are two networks.
					for range times {
						r.say(l)
						if l.Verb == "IpamDriver.RequestPool" {
							break
						}
					}
				}
				if ports := o.Vsctl("list-ports", "alubr0"); ports != "" {
					t.Errorf("ports left: %s", ports)
				}
			})
		}
	}
}

// The plugin answers while Open vSwitch is away, says what is missing, and goes on by
// itself when it comes.
func TestSwitchComesLater(t *testing.T) {
	needsRoot(t)
	o := ovstest.Start(t, ovstest.Netdev(), ovstest.Stopped())
	dir := t.TempDir()
	p := startPlugin(t, o, dir, map[string]string{"NUAGE_DATAPATH": "netdev"})
	apply(t, dir, tenants)
	create := []byte(`{"NetworkID":"` + id + `","Options":{"com.docker.network.generic":{"enterprise":"DCEnterprise","domain":"App1","zone":"VMZone","subnet":"VMSubnet"}},"IPv4Data":[{"AddressSpace":"null","Pool":"0.0.0.0/0"}]}`)
	if a := p.ask("NetworkDriver.CreateNetwork", create); a["Err"] != nil {
		t.Fatal(a["Err"])
	}
	endpoint := []byte(`{"NetworkID":"` + id + `","EndpointID":"` + id + `","Interface":{},"Options":{}}`)
	a := p.ask("NetworkDriver.CreateEndpoint", endpoint)
	if text, _ := a["Err"].(string); !strings.Contains(text, "start openvswitch-switch") {
		t.Fatalf("without a switch: %v; want what to start", a)
	}
	o.StartDB()
	o.StartVswitchd()
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		if a = p.ask("NetworkDriver.CreateEndpoint", endpoint); a["Err"] == nil {
			break
		} else if time.Now().After(end) {
			t.Fatalf("with the switch back: %v", a["Err"])
		}
	}
	if a = p.ask("NetworkDriver.Join", []byte(`{"NetworkID":"`+id+`","EndpointID":"`+id+`","SandboxKey":"/nowhere","Options":{}}`)); a["Err"] != nil {
		t.Fatal(a["Err"])
	}
}

// With a bad setting the plugin answers, refuses what is new with the remedy, and takes
// away what is there.
func TestBadSetting(t *testing.T) {
	needsRoot(t)
	p := startPlugin(t, nil, t.TempDir(), map[string]string{"NUAGE_DATAPATH": "dpdk"})
	if a := p.ask("NetworkDriver.GetCapabilities", nil); a["Scope"] != "local" {
		t.Errorf("capabilities %v", a)
	}
	if a := p.ask("NetworkDriver.CreateNetwork", []byte(`{"NetworkID":"`+id+`"}`)); !strings.Contains(fmt.Sprint(a["Err"]), "NUAGE_DATAPATH") {
		t.Errorf("CreateNetwork: %v", a)
	}
	for _, verb := range []string{"NetworkDriver.DeleteNetwork", "NetworkDriver.DeleteEndpoint", "NetworkDriver.Leave"} {
		if a := p.ask(verb, []byte(`{"NetworkID":"`+id+`","EndpointID":"`+id+`"}`)); a["Err"] != nil {
			t.Errorf("%s: %v", verb, a["Err"])
		}
	}
}

// Where the settings do not say which store it is, no other is opened, whose state would take
// the place of what the switch has. When they do, the plugin goes on by itself.
func TestMisplacedStore(t *testing.T) {
	needsRoot(t)
	was := lookAgain
	t.Cleanup(func() { lookAgain = was }) // after the plugin
	lookAgain = 20 * time.Millisecond
	dir := t.TempDir()
	certificate := filepath.Join(dir, "cert")
	p := startPlugin(t, nil, dir, map[string]string{"NUAGE_STORE_CA": certificate, "NUAGE_STORE_CERT": certificate, "NUAGE_STORE_KEY": certificate})
	if a := p.ask("NetworkDriver.CreateNetwork", []byte(`{"NetworkID":"`+id+`"}`)); !strings.Contains(fmt.Sprint(a["Err"]), "NUAGE_STORE_CA: open") {
		t.Errorf("CreateNetwork: %v", a)
	}
	if _, err := os.Stat(filepath.Join(dir, "state/etcd")); err == nil {
		t.Error("a store was opened")
	}
	writeCertificate(t, certificate)
	apply(t, dir, tenants)
}

// A second host of a name attaches nothing, and says why.
func TestSecondHostOfAName(t *testing.T) {
	needsRoot(t)
	var plugins []*plugin
	var dirs []string
	start := func(env map[string]string) {
		env["NUAGE_DATAPATH"] = "netdev"
		dirs = append(dirs, t.TempDir())
		ns := fmt.Sprintf("plugin%d-%d", os.Getpid(), len(dirs)) // whose switch it is: both make alubr0
		if out, err := exec.Command("ip", "netns", "add", ns).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		t.Cleanup(func() { exec.Command("ip", "netns", "del", ns).Run() })
		o := ovstest.Start(t, ovstest.Netdev(), ovstest.InNetNS("/run/netns/"+ns))
		plugins = append(plugins, startPlugin(t, o, dirs[len(dirs)-1], env))
	}
	start(map[string]string{})
	apply(t, dirs[0], tenants)
	create := []byte(`{"NetworkID":"` + id + `","Options":{"com.docker.network.generic":{"enterprise":"DCEnterprise","domain":"App1","zone":"VMZone","subnet":"VMSubnet"}},"IPv4Data":[{"AddressSpace":"null","Pool":"0.0.0.0/0"}]}`)
	if a := plugins[0].ask("NetworkDriver.CreateNetwork", create); a["Err"] != nil {
		t.Fatal(a["Err"])
	}
	start(map[string]string{"NUAGE_STORE": "unix://" + filepath.Join(dirs[0], "state/etcd/etcd.sock")})
	other := bytes.ReplaceAll(create, []byte(id), []byte(strings.Repeat("f", 64)))
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(100 * time.Millisecond) {
		a := plugins[1].ask("NetworkDriver.CreateNetwork", other)
		if strings.Contains(fmt.Sprint(a["Err"]), "another host of this name is alive") {
			break
		} else if time.Now().After(end) {
			t.Fatalf("a second host of the name creates a network: %v", a)
		}
	}
}

// A host that may not join says why, and dockerd does not wait for it.
func TestRefusedJoin(t *testing.T) {
	needsRoot(t)
	dir := t.TempDir()
	p := startPlugin(t, nil, dir, map[string]string{"NUAGE_JOIN": "nonsense"})
	began := time.Now()
	if a := p.ask("IpamDriver.GetCapabilities", nil); a["RequiresMACAddress"] != true || time.Since(began) > 3*time.Second {
		t.Errorf("%v after %s", a, time.Since(began))
	}
	// An engine that boots gives back all that its containers had.
	for i := range 4 {
		if a := p.ask("NetworkDriver.DeleteEndpoint", []byte(`{"EndpointID":"`+id+`"}`)); !strings.Contains(fmt.Sprint(a["Err"]), "join") {
			t.Errorf("DeleteEndpoint: %v", a)
		}
		if i == 0 {
			began = time.Now()
		}
	}
	if took := time.Since(began); took > 3*time.Second {
		t.Errorf("three more calls took %s", took)
	}
	client := http.Client{Transport: &http.Transport{DialContext: func(context.Context, string, string) (net.Conn, error) {
		return net.Dial("unix", filepath.Join(dir, "run/nuage/api.sock"))
	}}}
	for path, status := range map[string]int{"/nuage/v1/status": 200, "/nuage/v1/vports": 503, "/nuage/api/v6/domains": 503} {
		resp, err := client.Get("http://nuage" + path)
		if err != nil {
			t.Fatal(err)
		}
		text, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if resp.StatusCode != status || !strings.Contains(string(text), "join") {
			t.Errorf("%s: %s %s", path, resp.Status, text)
		}
	}
}
