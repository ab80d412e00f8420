package web

import (
	"context"
	"slices"
	"testing"

	"github.com/dunlin-edge/dunlin/fleet"
)

// TestIdentityActs goes through the acts of an operator on who may be a device.
func TestIdentityActs(t *testing.T) {
	s := newServer(t)
	s.ceremony()
	old := s.enrol("meter-1", map[string]string{"site": "harbour"})
	op := fleet.RoleOperator
	var d DeviceView
	show := func(id string) DeviceView {
		t.Helper()
		var d DeviceView
		s.ask(fleet.RoleViewer, "GET", "/v1/devices/"+id, nil).ok(&d)
		return d
	}
	if d = show("meter-1"); d.Key != fleet.Fingerprint(old.PublicKey) || len(d.Former) > 0 || len(d.Alarms) > 0 {
		t.Errorf("%+v", d)
	}

	// Replaced: the same name, another key, linked with the one before.
	var made TokenView
	s.ask(op, "POST", "/v1/devices/none/replace", map[string]any{}).refused(404, "device.unknown")
	s.ask(op, "POST", "/v1/devices/meter-1/replace", map[string]any{"serials": []string{"a", "b"}}).refused(400, "request.malformed")
	s.ask(op, "POST", "/v1/devices/meter-1/replace", map[string]any{}).ok(&made)
	if made.Replaces != "meter-1" || made.Max != 1 || made.Channel != "dev" {
		t.Errorf("%+v", made)
	}
	now := enrolRequest(t, made.Token, "")
	s.ask("", "POST", "/v1/enrol", now).ok(nil)
	d = show("meter-1")
	want := FormerView{Fingerprint: fleet.Fingerprint(old.PublicKey), How: fleet.EndedReplaced, By: fleet.Fingerprint(now.PublicKey)}
	if d.Key != want.By || d.Labels["site"] != "harbour" || len(d.Former) != 1 || d.Former[0].Fingerprint != want.Fingerprint || d.Former[0].How != want.How || d.Former[0].By != want.By {
		t.Errorf("%+v", d)
	}

	// Held, then accepted or rejected.
	s.ask(op, "POST", "/v1/enrol-tokens", map[string]any{"channel": "dev", "hold": true, "max": 2}).ok(&made)
	held := enrolRequest(t, made.Token, "meter-2")
	s.ask("", "POST", "/v1/enrol", held).refused(409, "enrol.pending")
	if d = show("meter-2"); d.Status != fleet.DevicePending || d.Key != fleet.Fingerprint(held.PublicKey) {
		t.Errorf("%+v", d)
	}
	s.ask(op, "POST", "/v1/devices/meter-2/accept", map[string]any{}).refused(409, "device.fingerprint")
	s.ask(op, "POST", "/v1/devices/meter-2/accept", map[string]any{"fingerprint": d.Key}).ok(&d)
	s.ask("", "POST", "/v1/enrol", held).ok(nil)
	s.ask("", "POST", "/v1/enrol", enrolRequest(t, made.Token, "meter-3")).refused(409, "enrol.pending")
	s.ask(op, "POST", "/v1/devices/meter-3/reject", nil).ok(nil)
	s.ask(op, "POST", "/v1/devices/meter-3/reject", nil).refused(404, "device.unknown")

	// Serials: as many as are listed when nothing else is said.
	s.ask(op, "POST", "/v1/enrol-tokens", map[string]any{"channel": "dev", "serials": []string{"x", "y"}}).ok(&made)
	if made.Max != 2 || !slices.Equal(made.Serials, []string{"x", "y"}) {
		t.Errorf("%+v", made)
	}
	s.ask("", "POST", "/v1/enrol", enrolRequest(t, made.Token, "meter-4")).refused(403, "serial.unlisted")

	// Retired: its sessions are ended, and only those who ask for all see it.
	s.ask(op, "POST", "/v1/devices/meter-1/retire", nil).ok(&d)
	if d.Status != fleet.DeviceRetired || !slices.Contains(s.revoked, "meter-1") {
		t.Errorf("%s, sessions ended of %v", d.Status, s.revoked)
	}
	for path, want := range map[string][]string{
		"/v1/devices": {"meter-2"}, "/v1/devices?all=true": {"meter-1", "meter-2"}, "/v1/devices?status=retired": {"meter-1"}, "/v1/devices?status=pending": nil,
	} {
		var p page[DeviceView]
		s.ask(fleet.RoleViewer, "GET", path, nil).ok(&p.Body)
		var got []string
		for _, d := range p.Body.Items {
			got = append(got, d.ID)
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s: %v", path, got)
		}
	}
	s.config.Alarms.(interface {
		Raise(ctx context.Context, x fleet.Alarm) bool
	}).Raise(t.Context(), fleet.Alarm{Kind: fleet.AlarmCloned, Subject: "meter-2", Text: "two", Next: "one"})
	if d = show("meter-2"); len(d.Alarms) != 1 || d.Alarms[0].Kind != fleet.AlarmCloned {
		t.Errorf("alarms %+v", d.Alarms)
	}
}
