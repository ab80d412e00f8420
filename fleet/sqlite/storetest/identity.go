package storetest

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/dunlin-edge/dunlin/fleet"
)

// token stores a token of the production channel.
func (s *suite) token(t fleet.EnrolToken) {
	s.Helper()
	t.Channel, t.Created, t.Expires = "production", start, start.Add(time.Hour)
	t.Max = max(t.Max, 1)
	s.must(s.CreateEnrolToken(s.Context(), &t, fleet.Audit{}))
}

// enter lets a key in with a token; serial is the fact that it tells.
func (s *suite) enter(token, id, key, status, serial string, at time.Time) (*fleet.Device, string, error) {
	d := &fleet.Device{ID: id, Status: status, Channel: "production", Facts: map[string]string{}, PublicKey: []byte(key), Serial: "2", Enrolled: at}
	if serial != "" {
		d.Facts[fleet.FactSerial] = serial
	}
	cert := "certificate of " + key
	if status == fleet.DevicePending {
		cert = ""
	}
	got, stored, err := s.Enrol(s.Context(), token, [32]byte{}, d, []byte(cert), at)
	return got, string(stored), err
}

// wants compares an error.
func (s *suite) wants(what string, err, want error) {
	s.Helper()
	if !errors.Is(err, want) {
		s.Errorf("%s: %v, want %v", what, err, want)
	}
}

// acts are the audit rows about an object, the newest first.
func (s *suite) acts(object string) (out []string) {
	s.Helper()
	as, err := s.Audit(s.Context(), object, "", 99)
	s.must(err)
	for _, a := range as {
		out = append(out, a.Act)
	}
	return out
}

// replaced gives the place of a device that is in use to another key.
func replaced(s *suite) {
	old := s.enrolled("meter-1", map[string]string{"site": "harbour"})
	s.enrolled("meter-2", nil)
	r, ms := s.running("m", 1, "meter-1", "meter-2")
	ms[0].Assigned, ms[0].Acked = start, start
	change := func(w *fleet.Wish) error { w.Put(fleet.Item{Model: "m", Path: "production/m/1"}); return nil }
	s.must(s.CommitRollout(s.Context(), fleet.Commit{Epoch: s.epoch(), Rollout: *r, Members: ms[:1], Device: "meter-1", Change: change}, start, signer))
	s.must(s.UpdateDevice(s.Context(), "meter-1", func(d *fleet.Device) error {
		d.Counter, d.Generation, d.Proof = 7, 1, fleet.Proven
		d.Heard(5, start)
		return nil
	}))
	s.token(fleet.EnrolToken{ID: "tok_r", Replaces: "meter-1"})
	later := start.Add(time.Minute)
	got, cert, err := s.enter("tok_r", "meter-1", "new key", fleet.DeviceActive, "", later)
	s.must(err)
	if string(got.PublicKey) != "new key" || cert != "certificate of new key" {
		s.Errorf("%+v, %s", got, cert)
	}
	s.reopen()
	d, err := s.Device(s.Context(), "meter-1")
	s.must(err)
	if d.Status != fleet.DeviceActive || d.Labels["site"] != "harbour" || d.Counter != 0 || d.Generation != 0 || d.Proof != "" || len(d.Runs) != 0 {
		s.Errorf("%+v", d)
	}
	w, err := s.Wish(s.Context(), "meter-1")
	s.must(err)
	if w.Generation != 1 || len(w.Items) != 1 {
		s.Errorf("wish %+v", w)
	}
	now, err := s.Members(s.Context(), r.ID)
	s.must(err)
	if now[0].Revoked || now[0].Assigned.IsZero() || !now[0].Acked.IsZero() {
		s.Errorf("member %+v", now[0])
	}
	fs, err := s.Formers(s.Context(), "meter-1")
	s.must(err)
	want := []fleet.Former{{Device: "meter-1", PublicKey: old.PublicKey, Since: old.Enrolled, Ended: later, How: fleet.EndedReplaced, By: []byte("new key")}}
	if diff := cmp.Diff(want, fs); diff != "" {
		s.Error(diff)
	}
	if diff := cmp.Diff([]string{"device.replaced", "device.enrol"}, s.acts("meter-1")); diff != "" {
		s.Error(diff)
	}
	// The same key again gets the same; the old one, and a third, nothing.
	_, cert, err = s.enter("tok_r", "meter-1", "new key", fleet.DeviceActive, "", later)
	if err != nil || cert != "certificate of new key" {
		s.Errorf("again: %q, %v", cert, err)
	}
	_, _, err = s.enter("tok_r", "meter-1", "third key", fleet.DeviceActive, "", later)
	s.wants("a used token", err, fleet.ErrTokenSpent)
	_, _, err = s.enter("tok_meter-1", "meter-1", string(old.PublicKey), fleet.DeviceActive, "", later)
	s.wants("the old key with its token", err, fleet.ErrDeviceRevoked)
	// A replacement token of a device that does not exist any more, or never did.
	s.token(fleet.EnrolToken{ID: "tok_x", Replaces: "nobody"})
	_, _, err = s.enter("tok_x", "nobody", "fourth key", fleet.DeviceActive, "", later)
	s.wants("nobody's place", err, fleet.ErrDeviceUnknown)
}

// retired ends a device for good.
func retired(s *suite) {
	s.enrolled("meter-1", nil)
	r, ms := s.running("m", 1, "meter-1")
	ms[0].Assigned = start
	change := func(w *fleet.Wish) error { w.Put(fleet.Item{Model: "m", Path: "production/m/1"}); return nil }
	commit := func() {
		s.Helper()
		s.must(s.CommitRollout(s.Context(), fleet.Commit{Epoch: s.epoch(), Rollout: *r, Members: ms, Device: "meter-1", Change: change}, start, signer))
	}
	commit()
	s.must(s.SetOnline(s.Context(), "meter-1", true, start))
	for n := range 2 { // the second changes nothing
		s.must(s.Retire(s.Context(), "meter-1", act(n, "device.retire", "meter-1"), signer))
	}
	s.reopen()
	d, err := s.Device(s.Context(), "meter-1")
	s.must(err)
	if d.Status != fleet.DeviceRetired || d.Online {
		s.Errorf("%+v", d)
	}
	empty := func() {
		s.Helper()
		w, err := s.Wish(s.Context(), "meter-1")
		s.must(err)
		if len(w.Items) != 0 || w.Generation < 2 {
			s.Errorf("wish %+v", w)
		}
	}
	empty()
	commit() // a rollout that gives it something back gives nothing
	empty()
	now, err := s.Members(s.Context(), r.ID)
	s.must(err)
	if !now[0].Revoked {
		s.Error("the rollout waits for a retired device")
	}
	ts, err := s.Tallies(s.Context(), []string{r.ID})
	s.must(err)
	for _, t := range ts[r.ID] {
		if !t.Revoked {
			s.Errorf("tally %+v", t)
		}
	}
	if ds, err := s.Targets(s.Context(), "production", ""); err != nil || len(ds) != 0 {
		s.Errorf("a retired device is a target: %v", err)
	}
	if ds, err := s.Devices(s.Context(), fleet.DeviceFilter{Not: fleet.DeviceRetired}); err != nil || len(ds) != 0 {
		s.Errorf("%d devices are listed, %v", len(ds), err)
	}
	s.wants("revoke", s.Revoke(s.Context(), "meter-1", fleet.Audit{}), fleet.ErrDeviceRetired)
	s.token(fleet.EnrolToken{ID: "tok_1", Max: 9})
	_, _, err = s.enter("tok_1", "meter-1", "new key", fleet.DeviceActive, "", start)
	s.wants("its name", err, fleet.ErrDeviceRetired)
	_, _, err = s.enter("tok_1", "meter-2", "key of meter-1", fleet.DeviceActive, "", start)
	s.wants("its key", err, fleet.ErrDeviceRevoked)
	s.token(fleet.EnrolToken{ID: "tok_r", Replaces: "meter-1"})
	if _, _, err = s.enter("tok_r", "meter-1", "new key", fleet.DeviceActive, "", start); err != nil {
		s.Error("a replacement:", err)
	}
	s.wants("retire nobody", s.Retire(s.Context(), "nobody", fleet.Audit{}, signer), fleet.ErrDeviceUnknown)
}

// waiting holds devices until an operator has decided.
func waiting(s *suite) {
	s.token(fleet.EnrolToken{ID: "tok_h", Hold: true, Max: 3, CA: []byte("a fingerprint")})
	hold := func(id, key string, at time.Time) (*fleet.Device, string, error) {
		return s.enter("tok_h", id, key, fleet.DevicePending, "", at)
	}
	for n := range 2 {
		d, cert, err := hold("meter-1", "key", start.Add(time.Duration(n)))
		if err != nil || d.Status != fleet.DevicePending || cert != "" {
			s.Fatalf("%+v, %q, %v", d, cert, err)
		}
	}
	_, _, err := hold("meter-1", "other key", start)
	s.wants("a name that is waited for", err, fleet.ErrDeviceExists)
	s.wants("revoke", s.Revoke(s.Context(), "meter-1", fleet.Audit{}), fleet.ErrDevicePending)
	s.wants("retire", s.Retire(s.Context(), "meter-1", fleet.Audit{}, signer), fleet.ErrDevicePending)
	if t, err := s.EnrolledWith(s.Context(), "meter-1"); err != nil || t.ID != "tok_h" || !t.Hold || string(t.CA) != "a fingerprint" {
		s.Errorf("%+v, %v", t, err)
	}
	d := &fleet.Device{ID: "meter-1", PublicKey: []byte("other key"), Serial: "3", Expires: start.Add(time.Hour)}
	s.wants("another key is accepted", s.AcceptDevice(s.Context(), d, []byte("certificate"), fleet.Audit{}), fleet.ErrNothingWaits)
	d.PublicKey = []byte("key")
	s.must(s.AcceptDevice(s.Context(), d, []byte("certificate"), act(1, "device.accept", "meter-1")))
	s.wants("accepted again", s.AcceptDevice(s.Context(), d, []byte("certificate"), fleet.Audit{}), fleet.ErrNothingWaits)
	s.reopen()
	// Who was accepted gets its certificate also after the token has expired; nobody
	// else gets in then.
	late := start.Add(2 * time.Hour)
	got, cert, err := hold("meter-1", "key", late)
	if err != nil || got.Status != fleet.DeviceActive || cert != "certificate" {
		s.Errorf("%+v, %q, %v", got, cert, err)
	}
	_, _, err = hold("meter-2", "second key", late)
	s.wants("a late one", err, fleet.ErrTokenExpired)
	if _, _, err = hold("meter-2", "second key", start); err != nil {
		s.Fatal(err)
	}
	s.must(s.RejectDevice(s.Context(), "meter-2", act(2, "device.reject", "meter-2")))
	s.wants("rejected again", s.RejectDevice(s.Context(), "meter-2", fleet.Audit{}), fleet.ErrDeviceUnknown)
	s.wants("an active one rejected", s.RejectDevice(s.Context(), "meter-1", fleet.Audit{}), fleet.ErrNothingWaits)
	_, _, err = hold("meter-2", "second key", start)
	s.wants("a rejected key", err, fleet.ErrDeviceRejected)
	s.token(fleet.EnrolToken{ID: "tok_free", Max: 9})
	_, _, err = s.enter("tok_free", "meter-3", "second key", fleet.DeviceActive, "", start)
	s.wants("a rejected key with another token", err, fleet.ErrDeviceRejected)
	if _, _, err = s.enter("tok_free", "meter-2", "third key", fleet.DeviceActive, "", start); err != nil {
		s.Error("the name of a rejected key:", err)
	}
	// Who waits does not get the history of somebody who was revoked.
	s.must(s.Revoke(s.Context(), "meter-2", fleet.Audit{}))
	_, _, err = hold("meter-2", "fourth key", start)
	s.wants("a revoked name", err, fleet.ErrDeviceExists)
}

// waitingAnew lets who waits come with another token: the one before may be gone, or
// name a CA that is.
func waitingAnew(s *suite) {
	s.token(fleet.EnrolToken{ID: "tok_1", Hold: true, Max: 3, CA: []byte("old CA")})
	s.token(fleet.EnrolToken{ID: "tok_2", Hold: true, Max: 3, CA: []byte("new CA"), Labels: map[string]string{"site": "mine"}})
	enter := func(token, key, status string) (*fleet.Device, string, error) {
		return s.enter(token, "meter-1", key, status, "", start)
	}
	pending := func(want ...fleet.Pending) {
		s.Helper()
		got, err := s.Pending(s.Context())
		s.must(err)
		if diff := cmp.Diff(want, got); diff != "" {
			s.Error(diff)
		}
	}
	pending()
	if _, _, err := enter("tok_1", "key", fleet.DevicePending); err != nil {
		s.Fatal(err)
	}
	pending(fleet.Pending{Device: "meter-1", CA: []byte("old CA")})
	err := s.DeleteEnrolToken(s.Context(), "tok_1", fleet.Audit{})
	s.wants("delete a token that is waited with", err, fleet.ErrTokenWaits)
	if err == nil || !strings.Contains(err.Error(), "meter-1") {
		s.Errorf("it names nobody: %v", err)
	}
	_, _, err = enter("tok_2", "other key", fleet.DevicePending)
	s.wants("another key", err, fleet.ErrDeviceExists)
	for range 2 {
		if d, cert, err := enter("tok_2", "key", fleet.DevicePending); err != nil || d.Status != fleet.DevicePending || cert != "" {
			s.Fatalf("%+v, %q, %v", d, cert, err)
		}
	}
	pending(fleet.Pending{Device: "meter-1", CA: []byte("new CA")})
	if t, err := s.EnrolledWith(s.Context(), "meter-1"); err != nil || t.ID != "tok_2" || t.Used != 1 {
		s.Errorf("%+v, %v", t, err)
	}
	s.must(s.DeleteEnrolToken(s.Context(), "tok_1", fleet.Audit{}))
	// A token that does not hold lets it in.
	s.token(fleet.EnrolToken{ID: "tok_3", Max: 1})
	if d, cert, err := enter("tok_3", "key", fleet.DeviceActive); err != nil || d.Status != fleet.DeviceActive || cert == "" {
		s.Errorf("%+v, %q, %v", d, cert, err)
	}
	s.reopen()
	d, err := s.Device(s.Context(), "meter-1")
	s.must(err)
	if d.Status != fleet.DeviceActive || d.Serial == "" {
		s.Errorf("%+v", d)
	}
	pending()
	s.must(s.DeleteEnrolToken(s.Context(), "tok_2", fleet.Audit{}))
}

// serials lets in what is listed, each once.
func serials(s *suite) {
	s.token(fleet.EnrolToken{ID: "tok_s", Serials: []string{"A", "B", "C"}, Max: 3})
	for n, c := range []struct {
		id, key, serial string
		want            error
	}{
		{"meter-1", "key 1", "", fleet.ErrSerialUnlisted},
		{"meter-1", "key 1", "Z", fleet.ErrSerialUnlisted},
		{"meter-1", "key 1", "A", nil},
		{"meter-1", "key 1", "A", nil},
		{"meter-2", "key 2", "A", fleet.ErrSerialUsed},
		{"meter-1", "key 2", "B", fleet.ErrDeviceExists}, // which uses up nothing
		{"meter-2", "key 2", "B", nil},
		{"meter-3", "key 2", "C", nil}, // the same key is the same device
		{"meter-3", "key 3", "B", fleet.ErrSerialUsed},
		{"meter-3", "key 3", "C", nil},
	} {
		_, _, err := s.enter("tok_s", c.id, c.key, fleet.DeviceActive, c.serial, start)
		s.wants(fmt.Sprint(n, ": ", c.id, c.serial), err, c.want)
	}
	// A refusal is written once a minute.
	for _, at := range []int{0, 1, 59, 60, 61} {
		s.must(s.RefusedSerial(s.Context(), "tok_s", "A", act(at, "device.enrol_refused", "tok_s")))
	}
	if got := s.acts("tok_s"); len(got) != 2 {
		s.Errorf("audited %v", got)
	}
	// Who is rejected gives its serial back.
	s.token(fleet.EnrolToken{ID: "tok_h", Serials: []string{"D"}, Hold: true, Max: 2})
	if _, _, err := s.enter("tok_h", "meter-4", "key 4", fleet.DevicePending, "D", start); err != nil {
		s.Fatal(err)
	}
	s.must(s.RejectDevice(s.Context(), "meter-4", fleet.Audit{}))
	if _, _, err := s.enter("tok_h", "meter-4", "key 5", fleet.DevicePending, "D", start); err != nil {
		s.Error(err)
	}
	got, err := s.EnrolToken(s.Context(), "tok_s")
	s.must(err)
	if diff := cmp.Diff([]string{"A", "B", "C"}, got.Serials); diff != "" {
		s.Error(diff)
	}
	s.must(s.DeleteEnrolToken(s.Context(), "tok_s", fleet.Audit{}))
}

// endedKeys never come back, under no name and with no token.
func endedKeys(s *suite) {
	s.enrolled("meter-1", nil)
	s.token(fleet.EnrolToken{ID: "tok_1", Max: 99})
	s.must(s.Revoke(s.Context(), "meter-1", fleet.Audit{}))
	if _, _, err := s.enter("tok_1", "meter-1", "key 2", fleet.DeviceActive, "", start); err != nil {
		s.Fatal(err)
	}
	s.token(fleet.EnrolToken{ID: "tok_r", Replaces: "meter-1"})
	if _, _, err := s.enter("tok_r", "meter-1", "key 3", fleet.DeviceActive, "", start); err != nil {
		s.Fatal(err)
	}
	s.must(s.Revoke(s.Context(), "meter-1", fleet.Audit{}))
	for _, key := range []string{"key of meter-1", "key 2", "key 3"} {
		for _, id := range []string{"meter-1", "meter-2"} {
			_, _, err := s.enter("tok_1", id, key, fleet.DeviceActive, "", start)
			s.wants(key+" as "+id, err, fleet.ErrDeviceRevoked)
		}
	}
	fs, err := s.Formers(s.Context(), "meter-1")
	s.must(err)
	if len(fs) != 2 || fs[0].How == fs[1].How {
		s.Errorf("%+v", fs)
	}
}
