package lab_test

import (
	"testing"
	"time"

	"github.com/dunlin-edge/dunlin/testbed/lab"
)

// TestBusyDeviceIsNoFlood lets a device have something to say all the time, and
// hints come all the time: it is never taken for one that floods, and all of it
// arrives.
func TestBusyDeviceIsNoFlood(t *testing.T) {
	s := lab.Start(t)
	d := s.Enrol("meter-1")
	d.Start(s.MQTT)
	lab.Until(t, "a welcome", d.Link.Connected)
	began, n := time.Now(), int64(0)
	for time.Since(began) < 1500*time.Millisecond {
		n++
		say(d, n)
		d.Link.Poke()
	}
	lab.Until(t, "every acknowledgement", func() bool { return d.Waiting() == 0 })
	wantStored(t, s, "meter-1", uint64(n))
	if k := s.Log.Count(map[string]string{"msg": "device kicked: too many messages"}); k > 0 {
		t.Errorf("kicked %d times", k)
	}
	t.Logf("%d records of each kind in %v", n, time.Since(began).Round(time.Millisecond))
}
