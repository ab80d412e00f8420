package main

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/json"
	"encoding/pem"
	"log/slog"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/dunlin-edge/dunlin/fleet"
	"github.com/dunlin-edge/dunlin/fleet/blob"
	"github.com/dunlin-edge/dunlin/fleet/catalog"
	"github.com/dunlin-edge/dunlin/fleet/publish"
	"github.com/dunlin-edge/dunlin/fleet/sqlite"
	"github.com/dunlin-edge/dunlin/fleet/web"
)

func key(t *testing.T) ed25519.PrivateKey {
	t.Helper()
	_, k, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// serve starts the real API over a real catalog and returns the environment that
// the commands want.
func serve(t *testing.T) map[string]string {
	t.Helper()
	dir := t.TempDir()
	db, err := sqlite.Open(t.Context(), filepath.Join(dir, "fleet.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	blobs, err := blob.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	keys, director := catalog.Keys{Snapshot: key(t), Timestamp: key(t)}, key(t).Public().(ed25519.PublicKey)
	online, err := json.Marshal(publish.Online{Snapshot: keys.Snapshot.Public().(ed25519.PublicKey), Timestamp: keys.Timestamp.Public().(ed25519.PublicKey), Director: director})
	if err != nil {
		t.Fatal(err)
	}
	access, token := fleet.NewAccess("test", fleet.RolePublisher, 0, time.Now())
	if err := db.CreateAccess(t.Context(), access, fleet.Audit{}); err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.DiscardHandler)
	s := httptest.NewTLSServer(web.New(web.Config{
		Rollouts: struct{ web.Rollouts }{}, Enrolment: struct{ web.Enrolment }{}, Store: db, Blobs: blobs, OnlineKeys: func() []byte { return online },
		Catalog: catalog.JSON{Service: &catalog.Service{Store: db, Blobs: blobs, Keys: keys, Director: director, Now: time.Now, Log: log}},
		Now:     time.Now, Version: "test", Log: log,
	}))
	t.Cleanup(s.Close)
	ca := filepath.Join(dir, "ca.pem")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw}), 0o644); err != nil {
		t.Fatal(err)
	}
	return map[string]string{"DUNLIN_SERVER": s.URL, "DUNLIN_TOKEN": token, "DUNLIN_CA": ca, "DUNLIN_PASSPHRASE": "long enough"}
}

// TestKeysAndPublish holds a ceremony and publishes a model as people would, with
// nothing but the commands.
func TestKeysAndPublish(t *testing.T) {
	env := serve(t)
	dir := filepath.Join(t.TempDir(), "ceremony")
	reader := filepath.Join(t.TempDir(), "reader")
	release := func(holder string) string { return filepath.Join(dir, "keys", holder+"-release.pem") }
	for _, step := range []struct {
		args string
		want string // in the output; after a "!" the command must fail
	}{
		{"keys init --dir DIR --holder alice", "1 of 3 holders have joined"},
		{"keys init --dir DIR --holder bob", "2 of 3"},
		{"keys init --dir DIR --holder carol", "the drafts are written"},
		{"keys sign --dir DIR --holder alice", "alice signed"},
		{"keys install --dir DIR", "!(ceremony.threshold)"},
		{"keys sign --dir DIR --holder carol", "carol signed"},
		{"keys install --dir DIR", "transcript.txt"},
		{"model pack ../../../testbed/models/digits/1.0.0 --out READER", "!--unsigned"},
		{"keys model-signing --out DIR/publisher.pem", "publisher.pem.pub"},
		{"model pack ../../../testbed/models/digits/1.0.0 --sign-key DIR/publisher.pem --out READER", "model.sig"},
		{"model publish READER --channel production --key ALICE", "!of: bob, carol"},
		{"model publish READER --channel production --key ALICE --key BOB", "production/meter-digits/1.0.0"},
		{"model publish READER --channel production --key ALICE --key BOB", "already published"},
		{"model publish READER --channel dev --key BOB -o json", `"counter": 1`},
	} {
		line := strings.NewReplacer("DIR", dir, "READER", reader, "ALICE", release("alice"), "BOB", release("bob")).Replace(step.args)
		var out bytes.Buffer
		c := &cli{in: strings.NewReader(""), out: &out, err: &out, getenv: func(name string) string { return env[name] }}
		code := c.run(t.Context(), strings.Fields(line))
		want, fails := strings.CutPrefix(step.want, "!")
		if fails != (code != 0) || !strings.Contains(out.String(), want) {
			t.Fatalf("dunlin %s: exit %d, want %q in\n%s", step.args, code, step.want, out.String())
		}
	}
}
