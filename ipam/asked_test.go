package ipam

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"nuage/controller/tenant"
)

var somewhere = place{SpaceLocal, prefix("10.0.0.0/24")}

func everything(string) bool { return true }

func mustAsk(t *testing.T, q *asked, pool string, repeated bool) {
	t.Helper()
	if err := q.ask(ctx, somewhere, pool, repeated); err != nil {
		t.Fatal(err)
	}
}

func mustClaim(t *testing.T, q *asked, want string) {
	t.Helper()
	if got, err := q.claim(somewhere, everything); err != nil || got != want {
		t.Fatalf("claimed %q, %v; want %q", got, err, want)
	}
}

func TestRequestsForOnePrefixPassOneAfterTheOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newAsked(time.Now)
		mustAsk(t, q, "a", false)
		mustAsk(t, q, "a", false) // the same pool needs no turn
		if err := q.ask(ctx, place{SpaceLocal, prefix("10.0.1.0/24")}, "c", false); err != nil {
			t.Fatal(err) // nor does another prefix
		}
		passed := make(chan time.Time, 1)
		go func() {
			if err := q.ask(ctx, somewhere, "b", false); err != nil {
				t.Error(err)
			}
			passed <- time.Now()
		}()
		mustClaim(t, q, "a")
		time.Sleep(time.Second)
		mustClaim(t, q, "a")
		claimed := time.Now()
		if at := <-passed; at != claimed {
			t.Errorf("the next request passed %s after the claim", at.Sub(claimed))
		}
		mustClaim(t, q, "b")
		mustClaim(t, q, "")
	})
}

func TestARequestDoesNotWaitForEver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newAsked(time.Now)
		mustAsk(t, q, "a", false)
		start := time.Now()
		err := q.ask(ctx, somewhere, "b", false)
		mustFail(t, err, tenant.ErrConflict, "another network with 10.0.0.0/24 is being created on this host")
		if took := time.Since(start); took != patience {
			t.Errorf("gave up after %s", took)
		}
		short, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		start = time.Now()
		if err := q.ask(short, somewhere, "b", false); err == nil || time.Since(start) != time.Second {
			t.Errorf("%v after %s", err, time.Since(start))
		}
		mustClaim(t, q, "a") // what did not pass is not claimed

		mustAsk(t, q, "a", false)
		q.withdraw(somewhere, "a") // its network could not be created
		q.withdraw(somewhere, "a")
		mustAsk(t, q, "b", false)
		mustClaim(t, q, "b")

		mustAsk(t, q, "a", false)
		time.Sleep(abandoned + time.Second)
		mustAsk(t, q, "b", false) // dockerd gave up on the other one long ago
		mustClaim(t, q, "b")
		mustClaim(t, q, "")
	})
}

func TestRepeatedRequestsNeitherWaitNorHoldUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newAsked(time.Now)
		start := time.Now()
		mustAsk(t, q, "a", true)
		mustAsk(t, q, "b", true)
		mustAsk(t, q, "new", false)
		mustAsk(t, q, "a", true)
		if took := time.Since(start); took != 0 {
			t.Errorf("took %s", took)
		}
		mustClaim(t, q, "new") // a network is sure to follow that one
		_, err := q.claim(somewhere, everything)
		mustFail(t, err, tenant.ErrConflict, "several tenants have a pool 10.0.0.0/24 on this host")
		if got, err := q.claim(somewhere, func(p string) bool { return p == "b" }); err != nil || got != "b" {
			t.Fatal(got, err)
		}
		mustAsk(t, q, "b", true)
		time.Sleep(apart)
		mustAsk(t, q, "a", true) // a second network of a pool, soon after the engine's start
		mustClaim(t, q, "a")
	})
}

func TestLoop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newAsked(time.Now)
		count := func() (n int) {
			for n = 1; n < 100 && !q.looping("a"); n++ {
			}
			return n
		}
		if n := count(); n != loopCalls {
			t.Errorf("a loop was seen at call %d", n)
		}
		for range 50 { // a script that makes network after network
			if q.looping("b") {
				t.Fatal("not a loop")
			}
			q.moved("b")
		}
		for range 50 {
			if q.looping("c") {
				t.Fatal("not a loop")
			}
			time.Sleep(loopTime / 4)
		}
	})
}

// A repetition that no network follows must not make a later request of the same pool
// look unfinished: that kept other tenants' networks with this prefix out.
func TestARepetitionIsNotWaitedForAfterAClaim(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newAsked(time.Now)
		mustAsk(t, q, "a", true) // dockerd starts
		mustAsk(t, q, "a", false)
		mustClaim(t, q, "a")
		before := time.Now()
		mustAsk(t, q, "b", false)
		if waited := time.Since(before); waited > 0 {
			t.Errorf("the other tenant's request waited %s", waited)
		}
		mustClaim(t, q, "b")
		mustClaim(t, q, "a") // the repetition may still be a network's
		mustClaim(t, q, "")
	})
}
