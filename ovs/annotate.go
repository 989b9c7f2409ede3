package ovs

import (
	"context"
	"fmt"
	"maps"
	"slices"
)

// Annotate makes external IDs of a port be as given, whoever made the port; an empty value
// means none, and those not named stay. It may be repeated, which changes nothing, and
// waits for a connection as EnsurePort does. A port that is not on the bridge is ErrNoPort.
func (b *Bridge) Annotate(ctx context.Context, name string, ids map[string]string) error {
	for {
		s, v, err := b.ready(ctx)
		if err != nil {
			return fmt.Errorf("port %s: %w", name, err)
		}
		m, exists := v.ports[name]
		if !exists {
			return fmt.Errorf("port %s: %w on bridge %s", name, ErrNoPort, b.conf.Bridge)
		}
		ops := annotate(m.row, ids)
		if ops == nil {
			return nil
		}
		if err := b.commit(ctx, s, ops); err != nil {
			return fmt.Errorf("port %s: %w", name, err)
		}
	}
}

// annotate is what an interface lacks of ids; nil if nothing.
func annotate(row *interfaceRow, ids map[string]string) []operation {
	lacks := maps.Clone(ids)
	maps.DeleteFunc(lacks, func(k, v string) bool { return row.ExternalIDs[k] == v })
	if len(lacks) == 0 {
		return nil
	}
	keys := slices.Sorted(maps.Keys(lacks))
	maps.DeleteFunc(lacks, func(_, v string) bool { return v == "" })
	return []operation{mutate("Interface", row.UUID, remove("external_ids", set(keys)), add("external_ids", textMap(lacks)))}
}

// Moved is closed when ports or a connection change, for any number of receivers. Take it
// before looking at Ports, so that nothing is missed.
func (b *Bridge) Moved() <-chan struct{} {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.moved
}
