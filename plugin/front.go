package main

import (
	"context"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"github.com/sirupsen/logrus"

	"nuage/controller/tenant"
	"nuage/controller/vsd"
)

// front answers the API from the first moment on: while the node does not start, with the
// reason, so that `nuagectl status` can show it.
type front struct{ now atomic.Pointer[http.Handler] }

func newFront(g *gate, s Settings, log logrus.FieldLogger) *front {
	started := time.Now()
	f := &front{}
	f.pass(vsd.New(vsd.Config{Store: closed{gate: g}, Version: version, Log: log.WithField("part", "api"), Status: func() vsd.Status {
		return vsd.Status{Version: version, VTEP: s.VTEP, Started: started, UptimeSeconds: int64(time.Since(started).Seconds()),
			Settings: settingErrors(s), Store: vsd.StoreStatus{Error: g.reason().Error()}}
	}}))
	return f
}

// pass leaves all further requests to h.
func (f *front) pass(h http.Handler) { f.now.Store(&h) }

func (f *front) ServeHTTP(w http.ResponseWriter, r *http.Request) { (*f.now.Load()).ServeHTTP(w, r) }

// closed is a store that is not there yet; the API asks it nothing but what it has here.
type closed struct {
	vsd.Store
	gate *gate
}

func (c closed) Ready() error                                { return c.gate.reason() }
func (c closed) Read(context.Context) (*tenant.State, error) { return nil, c.gate.reason() }
func (c closed) Revision(context.Context) (int64, error)     { return 0, c.gate.reason() }

func settingErrors(s Settings) (all []vsd.SettingError) {
	for _, p := range s.Problems {
		setting, problem, _ := strings.Cut(p.Error(), ": ")
		all = append(all, vsd.SettingError{Name: strings.TrimPrefix(setting, "setting "), Problem: problem})
	}
	return all
}
