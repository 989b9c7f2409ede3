package tenant

import (
	"fmt"
	"sync"
	"testing"
	"time"
)

func enterprise(id string) Change {
	return Change{Key{KindEnterprise, id}, &Enterprise{Meta: Meta{ID: id}, Name: id}}
}

func TestFeed(t *testing.T) {
	f := NewFeed()
	at, moved := f.Revision()
	f.Publish(5, enterprise("a"), enterprise("b"))
	select {
	case <-moved:
	default:
		t.Error("a publication does not end the wait for it")
	}
	if now, _ := f.Revision(); at != 0 || now != 5 {
		t.Errorf("revision %d, then %d", at, now)
	}
	f.Publish(3)
	if now, _ := f.Revision(); now != 5 {
		t.Errorf("the revision goes back to %d", now)
	}
	s := f.Subscribe()
	<-s.C()
	if keys := s.Take(); len(keys) != 2 {
		t.Errorf("what was there counts as changed: %v", keys)
	}
	f.Publish(6, enterprise("a"))
	f.Publish(7, enterprise("a"))
	<-s.C()
	if keys := s.Take(); len(keys) != 1 || keys[0].ID != "a" {
		t.Errorf("an object that changed twice: %v", keys)
	}
	f.Publish(8)
	select {
	case <-s.C():
		t.Error("a publication without changes wakes the subscriber")
	default:
	}
	s.Close()
	s.Close()
	f.Publish(9, enterprise("c"))
	if keys := s.Take(); len(keys) != 0 {
		t.Errorf("a closed subscription is told %v", keys)
	}
}

// TestSubscriptionMissesNothing has a reader that takes while a writer publishes: in the
// end it has been told of every object.
func TestSubscriptionMissesNothing(t *testing.T) {
	f := NewFeed()
	s := f.Subscribe()
	defer s.Close()
	const n = 2000
	var wg sync.WaitGroup
	wg.Go(func() {
		for i := range n {
			f.Publish(int64(i+1), enterprise(fmt.Sprint(i)))
		}
	})
	seen := map[string]bool{}
	timeout := time.After(10 * time.Second)
	for len(seen) < n {
		select {
		case <-s.C():
			for _, k := range s.Take() {
				f.View(func(st *State) {
					if st.Enterprises[k.ID] == nil {
						t.Errorf("told of %s before it is there", k.ID)
					}
				})
				seen[k.ID] = true
			}
		case <-timeout:
			t.Fatalf("told of %d of %d", len(seen), n)
		}
	}
	wg.Wait()
}
