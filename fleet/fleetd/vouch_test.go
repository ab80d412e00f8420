package fleetd

import (
	"context"
	"crypto/ed25519"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/dunlin-edge/dunlin/fleet"
	"github.com/dunlin-edge/dunlin/fleet/blob"
	"github.com/dunlin-edge/dunlin/fleet/catalog"
	"github.com/dunlin-edge/dunlin/fleet/catalog/catalogtest"
	"github.com/dunlin-edge/dunlin/fleet/modelsig"
	"github.com/dunlin-edge/dunlin/fleet/sqlite"
	"github.com/dunlin-edge/dunlin/shared/bundle"
)

// signKey makes a model-signing key and writes its public half into a folder.
func signKey(t *testing.T, dir, name string) *modelsig.Signer {
	t.Helper()
	pass := func(bool) ([]byte, error) { return []byte("a long passphrase"), nil }
	private, public, err := modelsig.NewKey(pass)
	if err != nil {
		t.Fatal(err)
	}
	s, err := modelsig.NewSigner(private, pass)
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, name), public, 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// TestVouch publishes bundles to a server whose policy wants a model signature for
// one channel: what a publisher's own choice was does not count there.
func TestVouch(t *testing.T) {
	dir, now := t.TempDir(), time.Now()
	publisher, stranger := signKey(t, dir, "publisher.pub"), signKey(t, dir, "stranger.pub")
	c := Config{Dir: dir, Signatures: map[string]modelsig.Requirement{"production": {Key: "publisher.pub"}}}
	policies, err := c.vouching()
	if err != nil {
		t.Fatal(err)
	}
	db, err := sqlite.Open(t.Context(), filepath.Join(dir, databaseFile))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	blobs, err := blob.Open(filepath.Join(dir, "blobs"))
	if err != nil {
		t.Fatal(err)
	}
	online := catalogtest.NewOnline()
	pub := catalogtest.New(t, 2, 3, online, now)
	s := &catalog.Service{Store: db, Blobs: blobs, Keys: online.Keys, Director: online.Director.Public().(ed25519.PublicKey), Vouch: policies.Vouch, Now: time.Now, Log: slog.New(slog.DiscardHandler)}
	if err := s.Install(t.Context(), pub.Ceremony(), "anna"); err != nil {
		t.Fatal(err)
	}
	for _, x := range []struct {
		about, channel, version string
		by                      *modelsig.Signer
		code                    string
	}{
		{"unsigned, where nothing is asked", "dev", "1.0.0", nil, ""},
		{"unsigned", "production", "1.0.0", nil, modelsig.CodeMissing},
		{"a stranger's", "production", "1.0.1", stranger, modelsig.CodeIdentity},
		{"the publisher's", "production", "1.1.0", publisher, ""},
	} {
		b := catalogtest.Model(t, "gauge", x.version, []byte("weights "+x.version))
		if x.by != nil {
			b = b.With(t, modelsig.Name, func(m *bundle.Manifest) ([]byte, error) {
				files, err := modelsig.BundleFiles(m)
				if err != nil {
					return nil, err
				}
				return x.by.Sign("gauge", files)
			})
		}
		b.Put(t, blobs)
		md := pub.Next(x.channel, map[*catalogtest.Bundle]int64{b: 1})
		releases, err := s.Ingest(context.Background(), x.channel, pub.SignRole(md), "anna")
		var refused *fleet.Error
		if x.code == "" && (err != nil || len(releases) != 1) {
			t.Errorf("%s: %v", x.about, err)
		}
		if x.code != "" && (!errors.As(err, &refused) || refused.Code != x.code || refused.Status != 422) {
			t.Errorf("%s: %v, want %s", x.about, err, x.code)
		}
	}
	as, err := db.Audit(t.Context(), "production", "", 9)
	if err != nil || len(as) != 1 || !strings.Contains(as[0].Detail, "model signature of key ") {
		t.Errorf("the act does not say who signed: %+v, %v", as, err)
	}
}

// TestVouchConfig wants a server not to serve with a policy that it does not
// understand.
func TestVouchConfig(t *testing.T) {
	dir := t.TempDir()
	signKey(t, dir, "publisher.pub")
	for about, x := range map[string]struct {
		channel string
		want    modelsig.Requirement
		good    bool
	}{
		"a key":           {"production", modelsig.Requirement{Key: "publisher.pub"}, true},
		"no such channel": {"nightly", modelsig.Requirement{Key: "publisher.pub"}, false},
		"no such file":    {"dev", modelsig.Requirement{Key: "gone.pub"}, false},
		"nothing":         {"dev", modelsig.Requirement{}, false},
		"two things":      {"dev", modelsig.Requirement{Key: "publisher.pub", Cert: "ca.pem"}, false},
	} {
		c := Config{Dir: dir, Signatures: map[string]modelsig.Requirement{x.channel: x.want}}
		_, err := c.vouching()
		if x.good != (err == nil) || err != nil && !errors.Is(err, fleet.ErrServerConfig) {
			t.Errorf("%s: %v", about, err)
		}
	}
	if p, err := (modelsig.Policies)(nil).Vouch("dev", &bundle.Bundle{}, time.Now()); p != "" || err != nil {
		t.Errorf("without a policy: %q, %v", p, err)
	}
}
