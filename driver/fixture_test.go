package driver

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	ipamapi "github.com/docker/go-plugins-helpers/ipam"
)

// call answers a verb as the wire does: from JSON to JSON.
func (r *rig) call(verb string, body []byte) (any, error) {
	calls := map[string]func() (any, error){
		"NetworkDriver.CreateNetwork":               order(body, r.CreateNetwork),
		"NetworkDriver.DeleteNetwork":               order(body, r.DeleteNetwork),
		"NetworkDriver.AllocateNetwork":             answering(body, r.AllocateNetwork),
		"NetworkDriver.FreeNetwork":                 order(body, r.FreeNetwork),
		"NetworkDriver.CreateEndpoint":              answering(body, r.CreateEndpoint),
		"NetworkDriver.DeleteEndpoint":              order(body, r.DeleteEndpoint),
		"NetworkDriver.EndpointOperInfo":            answering(body, r.EndpointInfo),
		"NetworkDriver.Join":                        answering(body, r.Join),
		"NetworkDriver.Leave":                       order(body, r.Leave),
		"NetworkDriver.ProgramExternalConnectivity": order(body, r.ProgramExternalConnectivity),
		"NetworkDriver.RevokeExternalConnectivity":  order(body, r.RevokeExternalConnectivity),
		"NetworkDriver.DiscoverNew":                 order(body, r.DiscoverNew),
		"NetworkDriver.DiscoverDelete":              order(body, r.DiscoverDelete),
		"IpamDriver.RequestPool":                    answering(body, r.ipam.RequestPool),
		"IpamDriver.ReleasePool":                    order(body, r.ipam.ReleasePool),
		"IpamDriver.RequestAddress":                 answering(body, r.ipam.RequestAddress),
		"IpamDriver.ReleaseAddress":                 order(body, r.ipam.ReleaseAddress),
	}
	f := calls[verb]
	if f == nil {
		return nil, fmt.Errorf("no verb %s", verb)
	}
	return f()
}

func answering[Q, R any](body []byte, f func(context.Context, *Q) (R, error)) func() (any, error) {
	return func() (any, error) {
		q := new(Q)
		if err := json.Unmarshal(body, q); err != nil {
			return nil, err
		}
		return f(bg, q)
	}
}

func order[Q any](body []byte, f func(context.Context, *Q) error) func() (any, error) {
	return answering(body, func(ctx context.Context, q *Q) (struct{}, error) { return struct{}{}, f(ctx, q) })
}

// like compares JSON values; "*" in want is any text that is not empty.
func like(want, got any) bool {
	switch want := want.(type) {
	case map[string]any:
		got, ok := got.(map[string]any)
		if !ok || len(want) != len(got) {
			return false
		}
		for k, v := range want {
			if g, ok := got[k]; !ok || !like(v, g) {
				return false
			}
		}
		return true
	case string:
		text, ok := got.(string)
		return ok && (want == text || want == "*" && text != "")
	}
	return fmt.Sprint(want) == fmt.Sprint(got)
}

func TestRecordedCalls(t *testing.T) {
	files, _ := filepath.Glob("testdata/*.json")
	if len(files) < 5 {
		t.Fatalf("only %d recordings", len(files))
	}
	for _, file := range files {
		for _, times := range []int{1, 2} {
			t.Run(fmt.Sprintf("%s, each call %d times", filepath.Base(file), times), func(t *testing.T) { replay(t, file, times) })
		}
	}
}

func replay(t *testing.T, file string, times int) {
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var steps []struct {
		Verb     string
		Request  json.RawMessage
		Response any
	}
	if err := json.Unmarshal(text, &steps); err != nil {
		t.Fatal(err)
	}
	r := newRig(t)
	r.subnet("NullZone", "nulls", "10.77.0.0/24")
	answered := map[string]string{"$POOL": "", "$ADDRESS": "", "$IP": ""}
	for i, s := range steps {
		body := strings.ReplaceAll(string(s.Request), "DCEnterprise", r.enterprise)
		for name, value := range answered {
			body = strings.ReplaceAll(body, name, value)
		}
		for range times {
			answer, err := r.call(s.Verb, []byte(body))
			if err != nil {
				t.Fatalf("call %d, %s: %v", i, s.Verb, err)
			}
			var got any
			js, _ := json.Marshal(answer)
			if err := json.Unmarshal(js, &got); err != nil {
				t.Fatal(err)
			}
			if !like(s.Response, got) {
				t.Errorf("call %d, %s:\n got %s\nwant %v", i, s.Verb, js, s.Response)
			}
			switch a := answer.(type) {
			case *ipamapi.RequestPoolResponse:
				answered["$POOL"] = a.PoolID
			case *ipamapi.RequestAddressResponse:
				answered["$ADDRESS"], answered["$IP"] = a.Address, strings.Split(a.Address, "/")[0]
			}
		}
	}
	r.Wait()
	if rest := r.world(); len(rest) > 0 {
		t.Errorf("left over: %q", rest)
	}
}
