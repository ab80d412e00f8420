package storetest

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/dunlin-edge/dunlin/fleet"
	"github.com/dunlin-edge/dunlin/shared/wire"
)

func devices(s *suite) {
	s.enrolled("meter-1", map[string]string{"site": "harbour"})
	want, err := s.Device(s.Context(), "meter-1")
	s.must(err)
	change := func(d *fleet.Device) error {
		d.Facts = map[string]string{"arch": "amd64", "class": "x86"}
		d.Epoch, d.Counter, d.Nonce = 1<<63+5, 1<<63+6, []byte("0123456789abcdef")
		d.Agent, d.Generation, d.Proof = "1.0", 7, fleet.Proven
		d.LastSeen, d.ReportedAt, d.Online = start.Add(time.Millisecond), start, true
		d.Models = []wire.ModelState{{Model: "m", Active: &wire.SlotState{Path: "production/m/1.0.0", Verdict: "good", Proven: true}}}
		d.Queues = []wire.QueueState{{Kind: wire.KindSample, Last: 1<<63 + 1, Dropped: 3}}
		return nil
	}
	s.must(s.UpdateDevice(s.Context(), "meter-1", change))
	s.must(change(want))
	s.reopen()
	got, err := s.Device(s.Context(), "meter-1")
	s.must(err)
	if diff := cmp.Diff(want, got); diff != "" {
		s.Error(diff)
	}
	boom := errors.New("boom")
	if err := s.UpdateDevice(s.Context(), "meter-1", func(d *fleet.Device) error { d.Agent = "2"; return boom }); !errors.Is(err, boom) {
		s.Errorf("a refused change: %v", err)
	}
	if got, _ := s.Device(s.Context(), "meter-1"); got.Agent != "1.0" {
		s.Error("a refused change was stored")
	}
	for name, err := range map[string]error{
		"update": s.UpdateDevice(s.Context(), "nobody", func(*fleet.Device) error { return nil }),
		"read":   second(s.Device(s.Context(), "nobody")),
		"revoke": s.Revoke(s.Context(), "nobody", fleet.Audit{}),
		"label":  second(s.SetLabels(s.Context(), "nobody", nil, nil, fleet.Audit{})),
	} {
		if !errors.Is(err, fleet.ErrDeviceUnknown) {
			s.Errorf("%s of an unknown device: %v", name, err)
		}
	}
}

func second[T any](_ T, err error) error { return err }

func labels(s *suite) {
	s.enrolled("meter-1", map[string]string{"site": "harbour", "tier": "test"})
	d, err := s.SetLabels(s.Context(), "meter-1", map[string]string{"site": "depot", "arch": "riscv"}, []string{"tier", "absent"}, act(1, "device.label", "meter-1"))
	s.must(err)
	if diff := cmp.Diff(map[string]string{"site": "depot", "arch": "riscv"}, d.Labels); diff != "" {
		s.Error(diff)
	}
	for sel, want := range map[string]bool{"": true, "site=depot": true, "site=harbour": false, "!tier": true, "arch=riscv": true, "arch=arm64": false} {
		ds, err := s.Devices(s.Context(), fleet.DeviceFilter{Selector: sel})
		if err != nil || len(ds) == 1 != want {
			s.Errorf("selector %q: %d devices, %v", sel, len(ds), err)
		}
	}
	if _, err := s.Devices(s.Context(), fleet.DeviceFilter{Selector: "a b"}); !errors.Is(err, fleet.ErrSelector) {
		s.Errorf("malformed selector: %v", err)
	}
}

func pages(s *suite) {
	var all []string
	for n := range 7 {
		id := fmt.Sprintf("meter-%d", n)
		all = append(all, id)
		s.enrolled(id, map[string]string{"odd": fmt.Sprint(n%2 == 1)})
	}
	var got []string
	for after := ""; ; {
		ds, err := s.Devices(s.Context(), fleet.DeviceFilter{After: after, Limit: 3})
		s.must(err)
		if len(ds) == 0 {
			break
		}
		for _, d := range ds {
			got = append(got, d.ID)
		}
		after = got[len(got)-1]
	}
	if diff := cmp.Diff(all, got); diff != "" {
		s.Error(diff)
	}
	s.must(s.Revoke(s.Context(), "meter-1", fleet.Audit{}))
	for _, c := range []struct {
		f    fleet.DeviceFilter
		want int
	}{
		{fleet.DeviceFilter{Selector: "odd=true"}, 3}, {fleet.DeviceFilter{Selector: "odd=true", Limit: 2}, 2}, {fleet.DeviceFilter{Status: fleet.DeviceRevoked}, 1},
		{fleet.DeviceFilter{Channel: "production"}, 7}, {fleet.DeviceFilter{Channel: "dev"}, 0},
	} {
		if ds, err := s.Devices(s.Context(), c.f); err != nil || len(ds) != c.want {
			s.Errorf("%+v: %d devices, %v", c.f, len(ds), err)
		}
	}
	if ds, err := s.Targets(s.Context(), "production", "odd=true"); err != nil || len(ds) != 2 {
		s.Errorf("targets: %d, %v: a revoked device is none", len(ds), err)
	}
}

func presence(s *suite) {
	for _, id := range []string{"a", "b", "c"} {
		s.enrolled(id, nil)
	}
	s.must(s.SetOnline(s.Context(), "a", true, start))
	s.must(s.SetOnline(s.Context(), "b", true, start))
	s.must(s.SetOnlineExactly(s.Context(), []string{"b", "c", "nobody"}))
	var online []string
	ds, err := s.Devices(s.Context(), fleet.DeviceFilter{})
	s.must(err)
	for _, d := range ds {
		if d.Online {
			online = append(online, d.ID)
		}
	}
	if !slices.Equal(online, []string{"b", "c"}) {
		s.Errorf("online: %v", online)
	}
	s.must(s.SetOnlineExactly(s.Context(), nil))
	if d, _ := s.Device(s.Context(), "b"); d.Online || !d.LastSeen.Equal(start) {
		s.Errorf("after nobody is online: %+v", d)
	}
}

func revocation(s *suite) {
	s.enrolled("meter-1", nil)
	s.must(s.SetOnline(s.Context(), "meter-1", true, start))
	s.must(s.Revoke(s.Context(), "meter-1", act(1, "device.revoke", "meter-1")))
	s.must(s.Revoke(s.Context(), "meter-1", act(2, "device.revoke", "meter-1")))
	if d, _ := s.Device(s.Context(), "meter-1"); d.Status != fleet.DeviceRevoked || d.Online {
		s.Errorf("%+v", d)
	}
	d := &fleet.Device{ID: "meter-1", PublicKey: []byte("key of meter-1")}
	if _, _, err := s.Enrol(s.Context(), "tok_meter-1", [32]byte{}, d, nil, start); !errors.Is(err, fleet.ErrDeviceRevoked) {
		s.Errorf("a revoked device got its certificate again: %v", err)
	}
}

func enrolTokens(s *suite) {
	tok := &fleet.EnrolToken{ID: "tok_1", Hash: [32]byte{1}, Channel: "dev", Labels: map[string]string{"site": "x"}, Max: 2, Expires: start.Add(time.Hour), Created: start, By: "acc_1"}
	s.must(s.CreateEnrolToken(s.Context(), tok, act(1, "token.create", "tok_1")))
	first := map[string]string{}
	for _, c := range []struct {
		name, token, key, id string
		hash                 byte
		at                   time.Time
		want                 error
	}{
		{"unknown token", "tok_2", "a", "a", 1, start, fleet.ErrTokenUnknown},
		{"wrong secret", "tok_1", "a", "a", 2, start, fleet.ErrTokenUnknown},
		{"first use", "tok_1", "a", "a", 1, start, nil},
		{"the same key again", "tok_1", "a", "a", 1, start.Add(time.Minute), nil},
		{"the same key under another name", "tok_1", "a", "z", 1, start, nil},
		{"another key under a name that is taken", "tok_1", "b", "a", 1, start, fleet.ErrDeviceExists},
		{"second device", "tok_1", "b", "b", 1, start, nil},
		{"one too many", "tok_1", "c", "c", 1, start, fleet.ErrTokenSpent},
		{"the last instant", "tok_1", "b", "b", 1, start.Add(time.Hour - time.Millisecond), nil},
		{"expired", "tok_1", "b", "b", 1, start.Add(time.Hour), fleet.ErrTokenExpired},
	} {
		d := &fleet.Device{ID: c.id, Status: fleet.DeviceActive, Channel: "dev", Labels: tok.Labels, PublicKey: []byte(c.key), Serial: "1", Enrolled: c.at}
		got, cert, err := s.Enrol(s.Context(), c.token, [32]byte{c.hash}, d, []byte("certificate made at "+c.name), c.at)
		if !errors.Is(err, c.want) {
			s.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
		if err != nil {
			continue
		}
		if had, ok := first[c.key]; ok && (string(cert) != had || got.ID != c.key) {
			s.Errorf("%s: got %s and %q", c.name, got.ID, cert)
		}
		if _, ok := first[c.key]; !ok {
			first[c.key] = string(cert)
		}
	}
	s.reopen()
	want := *tok
	want.Used = 2
	got, err := s.EnrolToken(s.Context(), "tok_1")
	s.must(err)
	if diff := cmp.Diff(&want, got); diff != "" {
		s.Error(diff)
	}
	if ts, err := s.EnrolTokens(s.Context()); err != nil || len(ts) != 1 {
		s.Errorf("%d tokens, %v", len(ts), err)
	}
	s.must(s.DeleteEnrolToken(s.Context(), "tok_1", act(2, "token.delete", "tok_1")))
	if err := s.DeleteEnrolToken(s.Context(), "tok_1", fleet.Audit{}); !errors.Is(err, fleet.ErrTokenUnknown) {
		s.Errorf("deleted again: %v", err)
	}
	if _, err := s.Device(s.Context(), "a"); err != nil {
		s.Errorf("a device went with its token: %v", err)
	}
}

// revokedNames lets another key take the name of a revoked identity.
func revokedNames(s *suite) {
	old := s.enrolled("meter-1", map[string]string{"site": "harbour"})
	r, ms := s.running("m", 1, "meter-1", "meter-2")
	wish := func(key string) *fleet.Wish {
		s.Helper()
		change := func(w *fleet.Wish) error { w.Put(fleet.Item{Model: "m", Path: "production/m/" + key}); return nil }
		s.must(s.CommitRollout(s.Context(), fleet.Commit{Epoch: s.epoch(), Rollout: *r, Members: ms[:1], Device: "meter-1", Change: change}, start, signer))
		w, err := s.Wish(s.Context(), "meter-1")
		s.must(err)
		return w
	}
	ms[0].Assigned, ms[0].Acked = start, start
	before := wish("1.0.0")
	tok := &fleet.EnrolToken{ID: "tok_new", Channel: "production", Labels: map[string]string{"row": "2"}, Max: 9, Expires: start.Add(time.Hour), Created: start}
	s.must(s.CreateEnrolToken(s.Context(), tok, fleet.Audit{}))
	enrol := func(token, key, channel string) (*fleet.Device, error) {
		d := &fleet.Device{ID: "meter-1", Status: fleet.DeviceActive, Channel: channel, Labels: tok.Labels, PublicKey: []byte(key), Serial: "2", Enrolled: start.Add(time.Minute)}
		got, _, err := s.Enrol(s.Context(), token, [32]byte{}, d, []byte("new certificate"), start)
		return got, err
	}
	if _, err := enrol("tok_new", "new key", "production"); !errors.Is(err, fleet.ErrDeviceExists) {
		s.Errorf("a name in use: %v", err)
	}
	s.must(s.UpdateDevice(s.Context(), "meter-1", func(d *fleet.Device) error { d.Counter, d.Generation, d.Proof = 7, 3, fleet.Proven; return nil }))
	s.must(s.Revoke(s.Context(), "meter-1", act(1, "device.revoke", "meter-1")))
	for key, want := range map[string]struct {
		channel string
		err     error
	}{string(old.PublicKey): {"production", fleet.ErrDeviceRevoked}, "another key": {"dev", fleet.ErrDeviceExists}} {
		if _, err := enrol("tok_new", key, want.channel); !errors.Is(err, want.err) {
			s.Errorf("key %q in channel %s: %v", key, want.channel, err)
		}
	}
	if _, err := enrol("tok_new", "new key", "production"); err != nil {
		s.Fatal(err)
	}
	s.reopen()
	got, err := s.Device(s.Context(), "meter-1")
	s.must(err)
	if got.Status != fleet.DeviceActive || string(got.PublicKey) != "new key" || got.Counter != 0 || got.Generation != 0 || got.Proof != "" ||
		got.Labels["site"] != "harbour" || got.Labels["row"] != "2" {
		s.Errorf("%+v", got)
	}
	// The wish is the same and goes on rising; the old acknowledgement is not the new key's.
	w, err := s.Wish(s.Context(), "meter-1")
	s.must(err)
	if diff := cmp.Diff(before, w); diff != "" {
		s.Error("the wish changed:", diff)
	}
	now, err := s.Members(s.Context(), r.ID)
	s.must(err)
	if now[0].Revoked || now[0].Assigned.IsZero() || !now[0].Acked.IsZero() {
		s.Errorf("member %+v", now[0])
	}
	if w = wish("2.0.0"); w.Generation != before.Generation+1 || w.Version != before.Version+1 {
		s.Errorf("generation %d and version %d after %d and %d", w.Generation, w.Version, before.Generation, before.Version)
	}
	// Whoever has the old key gets nothing for the old token any more.
	if _, err := enrol("tok_meter-1", string(old.PublicKey), "production"); !errors.Is(err, fleet.ErrDeviceRevoked) {
		s.Errorf("the old key: %v", err)
	}
}

func access(s *suite) {
	x, _ := fleet.NewAccess("ann", fleet.RoleOperator, time.Hour, start)
	forever, _ := fleet.NewAccess("ci", fleet.RolePublisher, 0, start)
	s.must(s.CreateAccess(s.Context(), x, act(1, "access.create", x.ID)))
	s.must(s.CreateAccess(s.Context(), forever, fleet.Audit{}))
	s.reopen()
	for _, want := range []*fleet.Access{x, forever} {
		got, err := s.AccessByHash(s.Context(), want.Hash)
		s.must(err)
		if diff := cmp.Diff(want, got, cmpopts.EquateApproxTime(time.Millisecond)); diff != "" {
			s.Error(diff)
		}
	}
	if xs, err := s.AccessList(s.Context()); err != nil || len(xs) != 2 {
		s.Errorf("%d, %v", len(xs), err)
	}
	s.must(s.DeleteAccess(s.Context(), x.ID, act(2, "access.delete", x.ID)))
	if err := s.DeleteAccess(s.Context(), x.ID, fleet.Audit{}); !errors.Is(err, fleet.ErrAccessUnknown) {
		s.Errorf("deleted again: %v", err)
	}
	if _, err := s.AccessByHash(s.Context(), x.Hash); !errors.Is(err, fleet.ErrUnauthenticated) {
		s.Errorf("an ended token lets in: %v", err)
	}
}

// concurrent lets readers and writers at it together; every write must be there.
func concurrent(s *suite) {
	for n := range 4 {
		s.enrolled(fmt.Sprint("meter-", n), nil)
	}
	var all sync.WaitGroup
	for n := range 4 {
		id := fmt.Sprint("meter-", n)
		all.Go(func() {
			for range 20 {
				if err := s.UpdateDevice(s.Context(), id, func(d *fleet.Device) error { d.Counter++; return nil }); err != nil {
					s.Error(err)
				}
			}
		})
		all.Go(func() {
			for range 20 {
				if _, err := s.Devices(s.Context(), fleet.DeviceFilter{}); err != nil {
					s.Error(err)
				}
			}
		})
	}
	all.Wait()
	for n := range 4 {
		if d, _ := s.Device(s.Context(), fmt.Sprint("meter-", n)); d.Counter != 20 {
			s.Errorf("%d of 20 changes are there", d.Counter)
		}
	}
}
