package vm

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"nuage/controller/tenant"
	"nuage/ovs"
)

// post is an interface of the bridge, with what there is and what there should be.
type post struct {
	name    string
	ids     map[string]string
	machine machine
	// vport is of the interface in the store; nil if there is none. nowhere is the ID of one
	// that is in no subnet and tells an error; empty if there is none.
	vport   *tenant.Vport
	nowhere string
	// problem is what is wrong with what the interface says, or with its link.
	problem error
	// absent is an interface that is gone, or that nobody asks to attach: its vport goes.
	// waiting is one whose link has just gone and may come back.
	absent, waiting bool
}

// round makes the vports of this host agree with the interfaces once, as far as it can, and
// returns when to look again.
func (w *Watcher) round(ctx context.Context) time.Duration {
	sw := w.Switch.Status()
	if w.Store.Ready() != nil || !sw.OVSDB.Connected || sw.Datapath == "" { // no datapath: no bridge
		return time.Second
	}
	if err := w.survey(ctx); err != nil {
		return time.Second
	}
	posts, surplus := w.posts(w.Switch.Ports())
	var leaving errgroup.Group
	leaving.SetLimit(atOnce)
	for _, v := range surplus {
		leaving.Go(func() error { w.leave(ctx, &v, "a second vport of its interface"); return nil })
	}
	for _, p := range posts {
		if p.absent && p.vport != nil {
			leaving.Go(func() error { w.leave(ctx, p.vport, "its interface is gone"); return nil })
		}
		if p.absent && p.nowhere != "" {
			leaving.Go(func() error { w.placed(ctx, p); return nil })
		}
	}
	leaving.Wait()
	var settling errgroup.Group
	settling.SetLimit(atOnce)
	for _, p := range posts {
		switch {
		case p.waiting:
		case p.absent:
			w.forget(ctx, p)
		case w.due(p):
			settling.Go(func() error { w.settle(ctx, p); return nil })
		}
	}
	settling.Wait()
	return w.next(posts)
}

// survey brings in, once a process, the domains that this host has machines in, so that
// what follows finds them in the feed, and notes what the feed does not have.
func (w *Watcher) survey(ctx context.Context) error {
	if w.surveyed {
		return nil
	}
	st, err := w.Store.Read(ctx)
	if err != nil {
		return err
	}
	for _, v := range st.Vports {
		if v.Host != w.Host || v.Type != tenant.VportVM {
			continue
		}
		if v.SubnetID == "" {
			if w.nowhere[v.Interface] == v.ID || w.nowhere[v.Interface] == "" {
				w.nowhere[v.Interface] = v.ID
			} else if err := w.Store.DeleteVport(ctx, v.ID); err != nil {
				return err
			}
			continue
		}
		if err := w.Store.Follow(ctx, v.DomainID); err != nil && !errors.Is(err, tenant.ErrNotFound) {
			return err
		}
	}
	w.surveyed = true
	return nil
}

// posts are the interfaces that machines have or had, and the vports that are one too many.
func (w *Watcher) posts(ports map[string]ovs.Port) (posts map[string]*post, surplus []tenant.Vport) {
	posts = map[string]*post{}
	for name, port := range ports {
		p := &post{name: name, ids: port.ExternalIDs, absent: !concerns(name, port.ExternalIDs)}
		if p.absent && (own.MatchString(name) || first(port.ExternalIDs, answers) == "") {
			continue
		}
		posts[name] = p
		p.machine, p.problem = read(name, port.ExternalIDs)
		if port.Error != "" {
			p.problem = fmt.Errorf("port %s: %s", name, port.Error)
		}
	}
	w.Store.Feed().View(func(st *tenant.State) {
		st.Children(tenant.Key{Kind: tenant.KindHost, ID: w.Host}, tenant.KindVport, func(id string) {
			v := *st.Vports[id]
			p := posts[v.Interface]
			switch {
			case v.Type != tenant.VportVM:
			case p == nil:
				posts[v.Interface] = &post{name: v.Interface, vport: &v, absent: true}
			case p.vport == nil:
				p.vport = &v
			case v.IPv4.IsValid() && !p.vport.IPv4.IsValid():
				surplus = append(surplus, *p.vport)
				p.vport = &v
			default:
				surplus = append(surplus, v)
			}
		})
	})
	w.mu.Lock()
	defer w.mu.Unlock()
	for name, id := range w.nowhere {
		if posts[name] == nil {
			posts[name] = &post{name: name, absent: true}
		}
		posts[name].nowhere = id
	}
	for name, p := range posts {
		if ports[name].Error == "" || p.absent {
			delete(w.gone, name)
			continue
		}
		if w.gone[name].IsZero() {
			w.gone[name] = time.Now()
		}
		p.absent = time.Since(w.gone[name]) >= w.Grace
		p.waiting = !p.absent
	}
	keep := func(name string) bool { return posts[name] != nil }
	maps.DeleteFunc(w.gone, func(name string, _ time.Time) bool { return !keep(name) })
	maps.DeleteFunc(w.troubles, func(name string, _ *trouble) bool { return !keep(name) })
	maps.DeleteFunc(w.settled, func(name string, _ settled) bool { return !keep(name) })
	return posts, surplus
}

// leave frees a vport: a lasting one stays, attached nowhere; any other goes, and its address
// rests. An interface's vport that was not freed is found again by the next round.
func (w *Watcher) leave(ctx context.Context, v *tenant.Vport, why string) bool {
	ctx, cancel := context.WithTimeout(ctx, attempt)
	defer cancel()
	log := w.Log.WithFields(map[string]any{"vport": v.Name, "interface": v.Interface, "address": v.IPv4, "mac": v.MAC})
	var err error
	if v.Lasting {
		free := *v
		free.Host, free.Interface, free.Error = "", "", ""
		_, err = w.Store.UpdateVport(ctx, free)
	} else {
		err = w.Store.DeleteVport(ctx, v.ID)
	}
	if err != nil {
		log.WithError(err).Warn("a machine is detached later")
		return false
	}
	w.mu.Lock()
	delete(w.declined, v.ID)
	w.mu.Unlock()
	log.Infof("machine detached: %s", why)
	return true
}

// placed removes what tells that an interface has no place.
func (w *Watcher) placed(ctx context.Context, p *post) {
	if p.nowhere == "" {
		return
	}
	if err := w.Store.DeleteVport(ctx, p.nowhere); err != nil {
		w.Log.WithError(err).WithField("interface", p.name).Debug("the vport that tells an error is removed later")
		return
	}
	w.mu.Lock()
	delete(w.nowhere, p.name)
	w.mu.Unlock()
	p.nowhere = ""
}

// forget takes back what was written at an interface whose vport is gone.
func (w *Watcher) forget(ctx context.Context, p *post) {
	w.mu.Lock()
	delete(w.troubles, p.name)
	delete(w.settled, p.name)
	w.mu.Unlock()
	if p.ids != nil {
		w.answer(ctx, p, "", "", p.problem)
	}
}

// answer writes at an interface what became of it.
func (w *Watcher) answer(ctx context.Context, p *post, ip, vport string, problem error) {
	ids := map[string]string{keyIP: ip, keyVport: vport, keyError: ""}
	if problem != nil {
		ids[keyError] = fmt.Sprintf("%.500s", problem)
	}
	if !concerns(p.name, p.ids) {
		ids[keyError] = ""
	}
	if err := w.Switch.Annotate(ctx, p.name, ids); err != nil && ctx.Err() == nil && !errors.Is(err, ovs.ErrNoPort) {
		w.Log.WithError(err).Debug("the interface does not show what became of it")
	}
}

// due tells whether there is something to do for an interface now.
func (w *Watcher) due(p *post) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if t := w.troubles[p.name]; t != nil && t.machine.equal(p.machine) && time.Now().Before(t.next) {
		return false
	}
	s := w.settled[p.name]
	return p.vport == nil || p.nowhere != "" || p.problem != nil || w.troubles[p.name] != nil || s.vport != p.vport.ID || !s.machine.equal(p.machine) ||
		!slices.Equal(s.shown, []string{p.ids[keyIP], p.ids[keyVport], p.ids[keyError]}) || w.error(p.vport) != p.vport.Error
}

// next is when there will be something to do, if nothing happens.
func (w *Watcher) next(posts map[string]*post) time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	at := time.Now().Add(look)
	for _, t := range w.troubles {
		if t.next.Before(at) {
			at = t.next
		}
	}
	for _, r := range w.declined {
		if r.taken && r.holds(time.Now()) && r.until.Before(at) {
			at = r.until
		}
	}
	for name, since := range w.gone {
		if end := since.Add(w.Grace); posts[name] != nil && posts[name].waiting && end.Before(at) {
			at = end
		}
	}
	return max(time.Until(at), breath)
}
