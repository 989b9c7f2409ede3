package multi

import (
	"path/filepath"
	"strings"
	"testing"
	"time"

	"nuage/test/host"
)

// A backup is restored while the fleet runs: who was there then loses nothing, who came later
// has its network again soon, and who has gone since leaves nothing behind.
func TestRestore(t *testing.T) {
	f := host.SharedFleet(t)
	one, two, three := f.Host(1), f.Host(2), f.Host(3)
	s := newSpread(f, "App1", []string{"front=10.124.1.0/24"})
	gone := three.Container("gone", "--network", s.network[3])
	address := three.IP(gone)
	s.reach(1, 2, 3)
	file := filepath.Join(t.TempDir(), "backup")
	one.Nuagectl("backup", file)
	two.Refused([]string{"run `nuagectl backup` there"}, "nuagectl", "backup", file+"2")

	three.Docker("rm", "-f", gone)
	late := two.Container("late", "--network", s.network[2])
	one.Reaches(s.containers[1], two.IP(late), 64)
	between, here := one.Ping(s.containers[1], s.ip[2]), two.Ping(s.containers[2], s.ip[2])
	restored := time.Now()
	t.Log(one.Nuagectl("restore", file))
	one.Eventually(30*time.Second, "the container that came after the backup is reached", func() error {
		if out, err := one.TryDocker("exec", s.containers[1], "app", "ping", "-c", "1", two.IP(late)); err != nil {
			return errorf("%v: %s", err, out)
		}
		return nil
	})
	t.Logf("a container that came after the backup has its network again after %s", time.Since(restored).Round(100*time.Millisecond))
	between.NoLoss("a restoration")
	here.NoLoss("a restoration")
	one.Eventually(30*time.Second, "the vport of the container that has gone goes again", func() error {
		if out := one.Nuagectl("get", "vports", "-o", "wide"); strings.Contains(out, address+" ") {
			return errorf("%s", out)
		}
		return nil
	})
	again := one.Container("again", "--network", s.network[1], "--ip", address)
	two.Reaches(late, one.IP(again), 64)
	s.reach(1, 2, 3)
}
