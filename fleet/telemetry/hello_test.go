package telemetry_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/dunlin-edge/dunlin/fleet"
	"github.com/dunlin-edge/dunlin/fleet/telemetry"
	"github.com/dunlin-edge/dunlin/shared/wire"
)

func TestHelloIsKeptAndAnswered(t *testing.T) {
	r := newRig(t)
	w := r.hello()
	want := &wire.Welcome{Protocol: 1, Nonce: w.Nonce, Window: telemetry.WindowIdle, Heartbeat: 300, Metadata: true}
	if diff := cmp.Diff(want, w); diff != "" {
		t.Error(diff)
	}
	if err := w.Check(); err != nil {
		t.Error(err)
	}
	d := r.device()
	if d.Class() != "arm64-pi5" || d.Agent != "1.0" || d.Epoch != r.epoch || !d.Online || !d.LastSeen.Equal(start) || string(d.Nonce) != string(w.Nonce) {
		t.Errorf("kept: %+v", d)
	}
	if len(d.Queues) != 1 || d.Queues[0].Dropped != 2 {
		t.Errorf("what the device dropped is not kept: %v", d.Queues)
	}
	if again := r.hello(); string(again.Nonce) == string(w.Nonce) {
		t.Error("two welcomes with one nonce")
	}
}

func TestHelloRefusals(t *testing.T) {
	r := newRig(t)
	r.enrol("meter-2", &r.key.PublicKey)
	must(t, r.db.Revoke(t.Context(), "meter-2", fleet.Audit{}))
	for _, c := range []struct {
		name, device string
		protocols    []int
		want         error
	}{
		{"no common protocol", device, []int{99}, telemetry.ErrProtocol},
		{"unknown device", "nobody", []int{1}, fleet.ErrDeviceUnknown},
		{"revoked device", "meter-2", []int{1}, fleet.ErrDeviceRevoked},
	} {
		if _, err := r.in.Hello(t.Context(), c.device, &wire.Hello{Protocols: c.protocols}); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
	}
	if d := r.device(); !d.LastSeen.IsZero() {
		t.Error("a refused hello changed the device")
	}
}

func TestHelloTellsWishWindowAndAcks(t *testing.T) {
	r := newRig(t)
	r.hello()
	r.send(r.report(), r.report())
	ro := r.rollout(spec())
	w := r.hello()
	if w.Generation != 1 || w.Window != telemetry.WindowRollout {
		t.Errorf("generation %d, window %d during a rollout", w.Generation, w.Window)
	}
	if diff := cmp.Diff([]wire.Ack{{Kind: wire.KindReport, Epoch: r.epoch, Sequence: 2}}, w.Acked); diff != "" {
		t.Error(diff)
	}
	if !r.member(ro).Acked.IsZero() {
		t.Error("a device that has not verified the wish acknowledged it")
	}
	r.generation = 1
	r.hello()
	if !r.member(ro).Acked.Equal(r.now) || r.woken == 0 {
		t.Errorf("acknowledged at %v, woken %d times", r.member(ro).Acked, r.woken)
	}
	r.epoch++
	if w := r.hello(); len(w.Acked) != 0 {
		t.Errorf("acknowledgements of a former epoch: %v", w.Acked)
	}
}

// TestAnAssignmentMadeMeanwhileIsNotAcknowledged: the wish is read, then a
// rollout assigns, then the memberships are changed.
func TestAnAssignmentMadeMeanwhileIsNotAcknowledged(t *testing.T) {
	r := newRig(t)
	first := r.rollout(spec())
	r.generation = 1
	other := spec()
	other.Model = "gauge"
	var second *fleet.Rollout
	r.in.Store = &between{Store: r.db, after: "Wish", do: func() {
		r.now = r.now.Add(time.Second)
		second = r.rollout(other)
	}}
	r.hello()
	if r.member(first).Acked.IsZero() || !r.member(second).Acked.IsZero() {
		t.Errorf("acknowledged: first %v, made meanwhile %v", r.member(first).Acked, r.member(second).Acked)
	}
}

func TestPresence(t *testing.T) {
	r := newRig(t)
	r.hello()
	r.now = r.now.Add(time.Minute)
	must(t, r.in.Presence(t.Context(), device, false))
	if d := r.device(); d.Online || !d.LastSeen.Equal(r.now) {
		t.Errorf("after the session ended: online %v, seen %v", d.Online, d.LastSeen)
	}
}

// TestPresenceOfTheRevoked tells the broker to end a session that began in the
// moment of its device's revocation.
func TestPresenceOfTheRevoked(t *testing.T) {
	r := newRig(t)
	must(t, r.db.Revoke(t.Context(), device, fleet.Audit{}))
	if err := r.in.Presence(t.Context(), device, true); !errors.Is(err, fleet.ErrDeviceRevoked) {
		t.Errorf("%v", err)
	}
	if r.device().Online {
		t.Error("it is online")
	}
	must(t, r.in.Presence(t.Context(), device, false))
}

// TestCopiedIsTold goes through the whole hello: the sign is told with the device's
// name, and an identity that has ended starts anew.
func TestCopiedIsTold(t *testing.T) {
	r := newRig(t)
	var told []string
	r.in.Copied = func(_ context.Context, id, detail string) { told = append(told, id+": "+detail) }
	say := func(run uint64) {
		t.Helper()
		h := &wire.Hello{Protocols: []int{1}, Epoch: 7, Run: run}
		if _, err := r.in.Hello(t.Context(), device, h); err != nil {
			t.Fatal(err)
		}
	}
	for _, run := range []uint64{1, 1, 2, 2} {
		say(run)
	}
	if len(told) != 0 {
		t.Errorf("a device that started twice: %v", told)
	}
	say(1)
	if len(told) != 1 || told[0] != device+": run 1 of its agent speaks again, after another run spoke" {
		t.Errorf("%v", told)
	}
	for range 8 {
		r.in.Session(t.Context(), device, "a")
		r.in.Session(t.Context(), device, "b")
	}
	if len(told) < 2 {
		t.Error("two places take turns, and nobody is told")
	}
	r.in.Forget(device)
	n := len(told)
	r.in.Session(t.Context(), device, "a")
	if len(told) != n {
		t.Error("sessions of an identity that has ended are held against the next")
	}
}
