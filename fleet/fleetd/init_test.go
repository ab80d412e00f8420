package fleetd

import (
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/dunlin-edge/dunlin/fleet"
	"github.com/dunlin-edge/dunlin/fleet/enroll"
	"github.com/dunlin-edge/dunlin/fleet/sqlite"
)

// TestInitAgain repeats an init that was killed before the database had its name.
func TestInitAgain(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "fleet")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, left := range []string{caFile, databaseFile + ".new", databaseFile + ".new-wal"} {
		if err := os.WriteFile(filepath.Join(dir, left), []byte("half"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	token, err := Init(t.Context(), dir, "localhost", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	left, err := filepath.Glob(filepath.Join(dir, databaseFile+"*"))
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]string{filepath.Join(dir, databaseFile)}, left); d != "" {
		t.Error(d)
	}
	r := start(t, dir, token)
	defer r.end()
	if got := r.status("/v1/access", token); got != 200 {
		t.Errorf("the admin of a repeated init: %d", got)
	}
}

// TestServerCertificate wants one that is good for the name and for long enough,
// however old or renamed the server is.
func TestServerCertificate(t *testing.T) {
	dir, _ := newDir(t)
	now := time.Now()
	first, err := loadKeys(dir, []string{"localhost"}, now)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		about, name string
		at          time.Time
		same        bool
	}{
		{"a new server", "localhost", now, true},
		{"just before half of its life", "localhost", now.Add(enroll.ServerLife/2 - time.Hour), true},
		{"past half of its life", "localhost", now.Add(enroll.ServerLife/2 + time.Hour), false},
		{"expired", "localhost", now.Add(2 * enroll.ServerLife), false},
		{"another name", "fleet.example", now, false},
	} {
		k, err := loadKeys(dir, []string{c.name}, c.at)
		if err != nil {
			t.Fatalf("%s: %v", c.about, err)
		}
		leaf := k.server.Leaf
		if same := leaf.Equal(first.server.Leaf); same != c.same {
			t.Errorf("%s: the same certificate: %v, want %v", c.about, same, c.same)
		}
		if err := leaf.VerifyHostname(c.name); err != nil {
			t.Errorf("%s: %v", c.about, err)
		}
		if leaf.NotAfter.Sub(c.at) < enroll.ServerLife/2 {
			t.Errorf("%s: ends %v", c.about, leaf.NotAfter)
		}
		if len(k.server.Certificate) != 2 {
			t.Errorf("%s: a chain of %d, the CA is to be in it", c.about, len(k.server.Certificate))
		}
	}
}

// TestOnlineKeys wants the API to show the public halves of the keys that sign,
// each its own.
func TestOnlineKeys(t *testing.T) {
	dir, token := newDir(t)
	k, err := loadKeys(dir, []string{"localhost"}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	r := start(t, dir, token)
	defer r.end()
	resp := r.get("/v1/keys/online", token)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	var got map[string]ed25519.PublicKey
	if err := json.Unmarshal(body, &got); err != nil {
		t.Fatalf("%s: %v", body, err)
	}
	want := map[string]ed25519.PublicKey{
		"catalog_snapshot": publicOf(k.catalog.Snapshot), "catalog_timestamp": publicOf(k.catalog.Timestamp), "director": publicOf(k.director),
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	different := map[string]bool{}
	for _, key := range got {
		different[string(key)] = true
	}
	if len(different) != 3 {
		t.Errorf("%d different keys, want 3", len(different))
	}
}

// TestSameKeys wants a server to notice that it could not start again.
func TestSameKeys(t *testing.T) {
	dir, _ := newDir(t)
	k, err := loadKeys(dir, []string{"localhost"}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	db, err := sqlite.Open(t.Context(), filepath.Join(dir, databaseFile))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	s := &server{c: Config{Dir: dir, Name: "localhost"}, keys: k, db: db}
	s.online.Store(&online{k.catalog, k.director})
	if err := s.sameKeys(); err != nil {
		t.Error(err)
	}
	other, _ := newDir(t)
	for _, file := range []string{caFile, caKeyFile, serverKeyFile, onlineFile} {
		path := filepath.Join(dir, file)
		own, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		foreign, err := os.ReadFile(filepath.Join(other, file))
		if err != nil {
			t.Fatal(err)
		}
		for about, b := range map[string][]byte{"empty": nil, "cut": own[:len(own)/2], "another's": foreign} {
			if err := os.WriteFile(path, b, 0o600); err != nil {
				t.Fatal(err)
			}
			if err := s.sameKeys(); !errors.Is(err, fleet.ErrServerKeys) {
				t.Errorf("%s is %s: %v", file, about, err)
			}
		}
		if err := os.WriteFile(path, own, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.sameKeys(); err != nil {
		t.Error(err)
	}
}
