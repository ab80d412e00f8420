package fleetd

import (
	"crypto/sha256"
	"errors"
	"log/slog"
	"strings"
	"testing"

	"github.com/dunlin-edge/dunlin/fleet"
	"github.com/dunlin-edge/dunlin/shared/bundle"
	"github.com/dunlin-edge/dunlin/shared/wire"
)

// TestBlobsAreAssigned wants a device to read no blob that its assignments do not
// name, even one that is there.
func TestBlobsAreAssigned(t *testing.T) {
	dir, _ := newDir(t)
	waitingRollout(t, dir) // enrols meter-1
	c, err := LoadConfig(dir)
	if err != nil {
		t.Fatal(err)
	}
	s := &server{c: c, log: slog.New(slog.DiscardHandler), hub: newHub(), told: make(chan struct{}, 1)}
	if err := s.open(t.Context()); err != nil {
		t.Fatal(err)
	}
	defer s.db.Close()
	const secret = "another's model"
	if err := s.blobs.Put(bundle.DigestOf([]byte(secret)), strings.NewReader(secret), 100); err != nil {
		t.Fatal(err)
	}
	for about, digest := range map[string][32]byte{"there": sha256.Sum256([]byte(secret)), "not there": sha256.Sum256(nil)} {
		for _, device := range []string{"meter-1", "nobody"} {
			if b, err := s.OpenBlob(t.Context(), device, digest); b != nil || !errors.Is(err, fleet.ErrBlobNotAssigned) {
				t.Errorf("%s reads a blob that is %s: %v", device, about, err)
			}
		}
	}
}

// TestRevokedGetNothing wants what is asked in the moment between a revocation and
// the end of the session refused, too.
func TestRevokedGetNothing(t *testing.T) {
	dir, _ := newDir(t)
	waitingRollout(t, dir) // enrols meter-1
	c, err := LoadConfig(dir)
	if err != nil {
		t.Fatal(err)
	}
	s := &server{c: c, log: slog.New(slog.DiscardHandler), hub: newHub(), told: make(chan struct{}, 1)}
	if err := s.open(t.Context()); err != nil {
		t.Fatal(err)
	}
	defer s.db.Close()
	if _, err := s.Refresh(t.Context(), "meter-1", &wire.Held{}); err != nil {
		t.Error(err)
	}
	if err := s.db.Revoke(t.Context(), "meter-1", fleet.Audit{}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Refresh(t.Context(), "meter-1", &wire.Held{}); !errors.Is(err, fleet.ErrDeviceRevoked) {
		t.Errorf("metadata: %v", err)
	}
	if _, err := s.OpenBlob(t.Context(), "meter-1", [32]byte{}); !errors.Is(err, fleet.ErrDeviceRevoked) {
		t.Errorf("a blob: %v", err)
	}
}

// TestHub wants every watcher of a rollout told, no other, and a slow one not to
// hold anybody.
func TestHub(t *testing.T) {
	h := newHub()
	a, stopA := h.watch("rol_1")
	b, stopB := h.watch("rol_1")
	other, stopOther := h.watch("rol_2")
	for range 3 {
		h.changed("rol_1")
	}
	stopA()
	h.changed("rol_1")
	if len(a) != 1 || len(b) != 1 || len(other) != 0 {
		t.Errorf("told %d, %d, %d times", len(a), len(b), len(other))
	}
	<-a
	h.changed("rol_1")
	if len(a) != 0 {
		t.Error("told after it went")
	}
	stopB()
	stopOther()
	if len(h.watchers) != 0 {
		t.Errorf("%d watchers are left", len(h.watchers))
	}
}
