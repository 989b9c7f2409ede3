package vm

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/google/uuid"

	"nuage/controller/tenant"
	"nuage/ipam"
)

// settled is an interface at which all was right, and what was written there.
type settled struct {
	machine machine
	vport   string
	shown   []string
}

// settle attaches the machine of an interface, or brings its vport up to date, and tells
// the outcome.
func (w *Watcher) settle(ctx context.Context, p *post) {
	ctx, cancel := context.WithTimeout(ctx, attempt)
	defer cancel()
	v, sub, err := w.vportFor(ctx, p)
	if err == nil {
		bounded, cancel := context.WithTimeout(ctx, wait)
		defer cancel()
		if err = w.Flows.WaitProgrammed(bounded, v.ID); err == nil && v.Error != "" {
			err = errors.New(v.Error)
		}
	} else if !errors.Is(err, tenant.ErrUnavailable) {
		v = w.tell(ctx, p, v, sub, err)
	}
	if v != nil && v.SubnetID != "" {
		w.placed(ctx, p)
	}
	if err != nil && errors.Is(ctx.Err(), context.Canceled) {
		return
	}
	ip, id := "", ""
	if v != nil {
		if id = v.ID; v.IPv4.IsValid() {
			ip = v.IPv4.String()
		}
	}
	w.note(p, v, err)
	w.answer(ctx, p, ip, id, err)
	if err == nil {
		w.mu.Lock()
		w.settled[p.name] = settled{p.machine, id, []string{ip, id, ""}}
		w.mu.Unlock()
	}
}

// note remembers and logs the outcome, an error once.
func (w *Watcher) note(p *post, v *tenant.Vport, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	log := w.Log.WithFields(map[string]any{"interface": p.name, "machine": p.machine.name(), "mac": p.machine.MAC})
	old := w.troubles[p.name]
	if err == nil {
		delete(w.troubles, p.name)
		if s, was := w.settled[p.name]; !was || s.vport != v.ID {
			log.WithFields(map[string]any{"vport": v.ID, "address": v.IPv4}).Info("machine attached")
		}
		return
	}
	t := &trouble{machine: p.machine, err: err, pause: firstPause}
	if old != nil && old.machine.equal(p.machine) {
		t.pause = min(2*old.pause, lastPause)
		if errors.Is(err, tenant.ErrConflict) {
			t.pause = min(t.pause, waitPause)
		}
	}
	t.next = time.Now().Add(t.pause)
	w.troubles[p.name] = t
	if old == nil || old.err.Error() != err.Error() {
		log.WithError(err).Warn("machine not attached as it should be")
	}
}

// vportFor is the vport of an interface, made or brought up to date. With an error, the vport
// is what the machine keeps all the same, and the subnet where one would be.
func (w *Watcher) vportFor(ctx context.Context, p *post) (*tenant.Vport, *tenant.Subnet, error) {
	have, m := p.vport, p.machine
	if have != nil && !have.IPv4.IsValid() { // it only tells an earlier error
		have = nil
	}
	if p.problem != nil { // perhaps half written
		return have, nil, p.problem
	}
	if m.Made != "" {
		v, err := w.made(ctx, p, have)
		return v, nil, err
	}
	spec := m.place()
	spec.Create = w.Autocreate
	if spec.Enterprise == "" {
		spec.Enterprise = w.Enterprise
	}
	if have != nil && !w.sent(m) {
		// What is attached stays where it is while it is not known that it belongs elsewhere:
		// its zone, say, may have another name by now.
		spec.Create = false
	}
	path, err := w.Store.EnsurePath(ctx, spec)
	if err == nil {
		err = w.Store.EnsurePolicyGroups(ctx, path.Domain.ID, m.Groups, w.Autocreate)
	}
	if err != nil {
		return have, nil, err
	}
	elsewhere := p.vport != nil && (p.vport.SubnetID != path.Subnet.ID || p.vport.Lasting)
	if elsewhere || have != nil && (have.MAC != m.MAC || m.Want.IsValid() && have.IPv4 != m.Want) {
		if !w.leave(ctx, p.vport, "it belongs elsewhere now") {
			return have, nil, tenant.Errorf(tenant.ErrUnavailable, "the machine's former vport is not freed yet")
		}
		p.vport, have = nil, nil
	}
	if have != nil {
		v, err := w.update(ctx, have, m)
		return v, &path.Subnet, err
	}
	v, err := w.attach(ctx, p, path.Subnet)
	return v, &path.Subnet, err
}

// sent tells whether the interface of an attached machine names another place than it did.
func (w *Watcher) sent(m machine) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	s, known := w.settled[m.Port]
	return known && s.machine.place() != m.place()
}

// attach leases an address and binds a vport to it.
func (w *Watcher) attach(ctx context.Context, p *post, sub tenant.Subnet) (*tenant.Vport, error) {
	if err := w.refuse(); err != nil {
		return nil, err
	}
	m := p.machine
	addr, err := w.Addresses.Allocate(ctx, sub, ipam.Request{MAC: m.MAC, Want: m.Want, Name: m.name()})
	if err != nil {
		return nil, err
	}
	v := w.newVport(p, &sub)
	v.MAC, v.IPv4, v.PolicyGroups, v.User = m.MAC, addr, m.Groups, m.User
	bound, err := w.Store.BindVport(ctx, v)
	if err != nil {
		// A reservation lapses by itself where it cannot be given back.
		return nil, errors.Join(err, w.Addresses.Release(context.WithoutCancel(ctx), sub.ID, addr))
	}
	return &bound, nil
}

func (w *Watcher) refuse() error {
	if w.Refuse == nil {
		return nil
	}
	return w.Refuse()
}

// newVport is a vport of an interface, without address, in a subnet or in none; in place of
// one there that tells an error.
func (w *Watcher) newVport(p *post, sub *tenant.Subnet) tenant.Vport {
	v := tenant.Vport{Name: p.machine.name(), Type: tenant.VportVM, Host: w.Host, Interface: p.name, Owner: tenant.Owner{VMUUID: p.machine.UUID}}
	switch {
	case sub == nil:
		v.ID = p.nowhere
	case p.vport != nil && p.vport.SubnetID == sub.ID:
		v.ID, v.SubnetID = p.vport.ID, sub.ID
	default:
		v.SubnetID = sub.ID
	}
	if v.ID == "" {
		v.ID = uuid.NewString()
	}
	return v
}

// tell has the machine's vport say what is wrong: the one that it keeps, or one without
// address in its subnet, or in none where that is not known. Such a one has no MAC either, which another machine may
// have by right.
func (w *Watcher) tell(ctx context.Context, p *post, have *tenant.Vport, sub *tenant.Subnet, problem error) *tenant.Vport {
	text := fmt.Sprintf("%.500s", problem)
	var told tenant.Vport
	var err error
	if have != nil {
		v := *have
		v.Error = text
		told, err = w.Store.UpdateVport(ctx, v)
	} else {
		v := w.newVport(p, sub)
		v.Error = text
		told, err = w.Store.BindVport(ctx, v)
	}
	if err == nil && told.SubnetID == "" {
		w.mu.Lock()
		w.nowhere[p.name] = told.ID
		w.mu.Unlock()
		if p.vport != nil { // of an error in a subnet that is not its any more
			w.leave(ctx, p.vport, "it has no place now")
		}
	}
	if err != nil {
		w.Log.WithError(err).WithField("interface", p.name).Debug("no vport tells what is wrong with the machine")
		return have
	}
	return &told
}

// made is the vport made ahead that an interface names, attached here.
func (w *Watcher) made(ctx context.Context, p *post, have *tenant.Vport) (*tenant.Vport, error) {
	m := p.machine
	v, err := w.Store.FindVport(ctx, m.Made)
	switch {
	case errors.Is(err, tenant.ErrNotFound):
		return have, fmt.Errorf("%s: %w: create the vport first, or say enterprise, domain, zone and network", keyIfaceID, err)
	case err != nil:
		return have, err
	case p.vport != nil && p.vport.ID != v.ID:
		if !w.leave(ctx, p.vport, "its interface is another vport's now") {
			return have, tenant.Errorf(tenant.ErrUnavailable, "the machine's former vport is not freed yet")
		}
		have = nil
	}
	conflict := func(format string, args ...any) (*tenant.Vport, error) {
		return have, tenant.Errorf(tenant.ErrConflict, "vport %s: "+format, append([]any{v.Name}, args...)...)
	}
	switch {
	case v.Type != tenant.VportVM || !v.Lasting:
		return conflict("it was not made for a machine")
	case !m.MAC.IsZero() && m.MAC != v.MAC:
		return conflict("its MAC address is %s, the machine's %s", v.MAC, m.MAC)
	case v.Host == w.Host && v.Interface != p.name:
		return conflict("it is attached by interface %s", v.Interface)
	case v.Host != w.Host && v.Host != "":
		return conflict("it is attached on host %s until that loses its interface", v.Host)
	case v.Host == "":
		if err := w.refuse(); err != nil {
			return nil, err
		}
	}
	if err := w.Store.Follow(ctx, v.DomainID); err != nil {
		return nil, err
	}
	v.Host, v.Interface = w.Host, p.name
	return w.update(ctx, &v, m)
}

// update makes the details of a vport be as the interface says. What the interface does not
// say stays: it may have been said elsewhere.
func (w *Watcher) update(ctx context.Context, have *tenant.Vport, m machine) (*tenant.Vport, error) {
	v := *have
	if !v.Lasting {
		v.Name = m.name()
	}
	if m.UUID != "" {
		v.Owner.VMUUID = m.UUID
	}
	if m.User != "" {
		v.User = m.User
	}
	if len(m.Groups) > 0 {
		v.PolicyGroups = slices.Clone(m.Groups)
	}
	w.mu.Lock()
	v.Error = w.error(&v)
	w.mu.Unlock()
	updated, err := w.Store.UpdateVport(ctx, v)
	if err != nil {
		return have, err
	}
	return &updated, nil
}

// error is what a vport with an address tells of it. mu is held.
func (w *Watcher) error(v *tenant.Vport) string {
	if !v.IPv4.IsValid() {
		return v.Error
	}
	if r, declined := w.declined[v.ID]; declined && r.holds(time.Now()) {
		return declinedText(v.IPv4)
	}
	return ""
}

func declinedText(a netip.Addr) string {
	return fmt.Sprintf("the machine declined %s: it says that somebody else has it", a)
}
