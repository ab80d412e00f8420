package trust

import (
	"crypto/ed25519"
	"errors"
	"testing"
	"time"

	"github.com/theupdateframework/go-tuf/v2/metadata"
)

// TestTimeOfAReplacedKey has a stolen key push the device's time beyond every
// expiry. A root that replaces the key takes that back in the same refresh.
func TestTimeOfAReplacedKey(t *testing.T) {
	w := newWorld(t)
	d := w.device("meter-1")
	if _, err := d.refresh(); err != nil {
		t.Fatal(err)
	}
	first := d.c.Evidence()
	if first.Key == "" || !first.Issued.Equal(now) || !first.Horizon.After(now) {
		t.Fatalf("evidence %+v", first)
	}
	d.c.c.NowUnder = func(key string) time.Time {
		if key == first.Key {
			return first.Horizon.Add(time.Hour)
		}
		return now
	}
	w.o.version, w.o.catalogVersion = 2, 2
	_, err := d.refresh()
	var r *Refusal
	if !errors.As(err, &r) {
		t.Fatalf("with the time pushed ahead: %v", err)
	}
	w.director = newKey()
	w.extra = []File{{Director, metadata.ROOT, 2, w.root(map[string]ed25519.PrivateKey{metadata.TARGETS: w.director, metadata.SNAPSHOT: w.director, metadata.TIMESTAMP: w.director}, 2, w.rootA, w.rootB)}}
	w.o.directorKey = w.director
	if _, err := d.c.Refresh(t.Context(), &both{w}); err != nil {
		t.Fatalf("after the key was replaced: %v", err)
	}
	if e := d.c.Evidence(); e.Key == first.Key {
		t.Error("the evidence is of the old key")
	}
	d.open("meter-1")
	if e := d.c.Evidence(); e.Key == first.Key || !e.Issued.Equal(now) {
		t.Errorf("after a restart: %+v", e)
	}
}
