package lab_test

import (
	"net/http"
	"testing"

	"github.com/dunlin-edge/dunlin/fleet"
	"github.com/dunlin-edge/dunlin/testbed/lab"
)

// copied tells whether the alarm about a device is up.
func copied(s *lab.Server, device string) bool {
	var out struct {
		Items []struct{ Kind, Subject string }
	}
	s.Do(http.MethodGet, "/v1/alarms", nil, &out)
	for _, a := range out.Items {
		if a.Kind == fleet.AlarmCloned && a.Subject == device {
			return true
		}
	}
	return false
}

// TestDropsAreNoCopies: a device whose connection is cut again and again, that begins
// a session while its last one is half open, and that starts anew, is one device.
func TestDropsAreNoCopies(t *testing.T) {
	s := lab.Start(t)
	d, p := s.Enrol("meter-1"), lab.NewProxy(t, s.MQTT)
	d.Start(p.Addr())
	for range 15 {
		n := d.Welcomes()
		lab.Until(t, "a welcome", func() bool { return d.Welcomes() > n })
		p.Cut()
	}
	for range 6 { // the server hears nothing of the end of the session before
		n := d.Welcomes()
		lab.Until(t, "a welcome", func() bool { return d.Welcomes() > n || d.Link.Connected() })
		p.Hold(true)
		d.Stop()
		p = lab.NewProxy(t, s.MQTT)
		d.Start(p.Addr())
	}
	n := d.Welcomes()
	lab.Until(t, "a welcome", func() bool { return d.Welcomes() > n })
	if copied(s, "meter-1") {
		t.Error("one device was taken for two")
	}
}

// TestCopy: two devices with one disk are noticed; a replacement shuts out both, and
// is not taken for a third.
func TestCopy(t *testing.T) {
	s := lab.Start(t)
	d := s.Enrol("meter-1")
	d.Start(s.MQTT)
	lab.Until(t, "a welcome", func() bool { return d.Welcomes() > 0 })
	d.Stop()
	twin := d.Copy()
	d.Start(s.MQTT)
	twin.Start(s.MQTT)
	lab.Until(t, "the alarm", func() bool { return copied(s, "meter-1") })
	right := s.Replace("meter-1")
	right.Start(s.MQTT)
	lab.Until(t, "that the right one has a session and the others none", func() bool {
		return right.Welcomes() > 0 && right.Link.Connected() && !d.Link.Connected() && !twin.Link.Connected()
	})
	n, m := d.Welcomes(), twin.Welcomes()
	before := right.Welcomes()
	right.Link.Poke()
	lab.Until(t, "another welcome", func() bool { return right.Welcomes() > before })
	if d.Welcomes() > n || twin.Welcomes() > m {
		t.Error("an old one is still answered")
	}
	if copied(s, "meter-1") {
		t.Error("the alarm outlives the identity")
	}
}
