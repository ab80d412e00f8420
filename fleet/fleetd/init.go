package fleetd

import (
	"context"
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/dunlin-edge/dunlin/fleet"
	"github.com/dunlin-edge/dunlin/fleet/catalog"
	"github.com/dunlin-edge/dunlin/fleet/enroll"
	"github.com/dunlin-edge/dunlin/fleet/sqlite"
)

// Files of a server's directory.
const (
	databaseFile  = "fleet.db"
	caFile        = "ca.pem"
	caKeyFile     = "ca-key.pem"
	serverFile    = "server.pem"
	serverKeyFile = "server-key.pem"
	onlineFile    = "online-keys.json"
)

// onlineKeys are the three keys that a server signs with, as stored.
type onlineKeys struct {
	Snapshot  []byte `json:"catalog_snapshot"` // ed25519 seed
	Timestamp []byte `json:"catalog_timestamp"`
	Director  []byte `json:"director"`
}

// keys is every secret of a server.
type keys struct {
	cas      []*enroll.CA // the first issues
	server   tls.Certificate
	catalog  catalog.Keys
	director ed25519.PrivateKey
	online   []byte // JSON of the public halves
}

// Init makes a server in dir and returns the text of its first admin token, which
// is nowhere else. A directory that holds a server is refused.
func Init(ctx context.Context, dir, name string, now time.Time) (token string, err error) {
	if _, err := os.Stat(filepath.Join(dir, databaseFile)); err == nil {
		return "", fleet.ErrServerExists.With("%s holds a server already", dir)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", err
	}
	ca, err := enroll.NewCA(name, now)
	if err != nil {
		return "", err
	}
	caKey, err := ca.Key()
	if err != nil {
		return "", err
	}
	cert, key, err := ca.Server(serverNames([]string{name}), now)
	if err != nil {
		return "", err
	}
	seed := func() []byte { b := make([]byte, ed25519.SeedSize); rand.Read(b); return b } // never fails
	online, err := json.MarshalIndent(onlineKeys{seed(), seed(), seed()}, "", "  ")
	if err != nil {
		return "", err
	}
	c := Defaults()
	c.Name = name
	conf, err := yaml.Marshal(c)
	if err != nil {
		return "", err
	}
	for _, f := range []struct {
		name string
		data []byte
		mode os.FileMode
	}{{caFile, ca.Cert(), 0o644}, {caKeyFile, caKey, 0o600}, {serverFile, cert, 0o644}, {serverKeyFile, key, 0o600}, {onlineFile, online, 0o600}, {configFile, conf, 0o644}} {
		if err := os.WriteFile(filepath.Join(dir, f.name), f.data, f.mode); err != nil {
			return "", err
		}
	}
	return firstAccess(ctx, dir, now)
}

// firstAccess makes the database with the first admin. The file gets its name as
// the last act of Init, so an interrupted one can be repeated.
func firstAccess(ctx context.Context, dir string, now time.Time) (string, error) {
	path := filepath.Join(dir, databaseFile+".new")
	for _, left := range []string{path, path + "-wal", path + "-shm"} {
		if err := os.Remove(left); err != nil && !errors.Is(err, os.ErrNotExist) {
			return "", err
		}
	}
	db, err := sqlite.Open(ctx, path)
	if err != nil {
		return "", err
	}
	x, token := fleet.NewAccess("first admin", fleet.RoleAdmin, 0, now)
	a := fleet.Audit{ID: fleet.NewID(fleet.PrefixAudit, now), At: now, Actor: "server", Act: "server.init", Object: x.ID}
	// Closing moves what the log of the database holds into the file.
	if err := errors.Join(db.CreateAccess(ctx, x, a), db.Close()); err != nil {
		return "", err
	}
	return token, os.Rename(path, filepath.Join(dir, databaseFile))
}

// loadKeys reads every secret of dir. A server certificate that is past half of its
// life, lacks a name or is of another CA than the one that issues is issued anew for
// this run: devices know the CAs only.
func loadKeys(dir string, names []string, now time.Time) (*keys, error) {
	read := func(name string) []byte { b, _ := os.ReadFile(filepath.Join(dir, name)); return b } // what is missing does not parse
	k := &keys{}
	var err error
	if k.cas, err = enroll.LoadCAs(read(caFile), read(caKeyFile)); err != nil {
		return nil, fleet.ErrServerKeys.With("%s: %v", dir, err)
	}
	if k.server, err = tls.X509KeyPair(read(serverFile), read(serverKeyFile)); err != nil {
		return nil, fleet.ErrServerKeys.With("%s: %v", dir, err)
	}
	if st := (&enroll.Standing{CAs: k.cas}); !st.Covers(k.server.Leaf, names, now) {
		if k.server, err = st.Server(serverNames(names), now); err != nil {
			return nil, err
		}
	}
	o, err := loadOnline(dir, onlineFile)
	if err != nil {
		return nil, err
	}
	if o == nil {
		return nil, fleet.ErrServerKeys.With("%s in %s is missing", onlineFile, dir)
	}
	k.catalog, k.director = o.catalog, o.director
	k.online, err = json.Marshal(o.public())
	return k, err
}

// serverNames are what a server's certificate is good for.
func serverNames(names []string) []string {
	out := slices.Clone(names)
	for _, n := range []string{"localhost", "127.0.0.1", "::1"} {
		if !slices.Contains(out, n) {
			out = append(out, n)
		}
	}
	return out
}

func publicOf(k ed25519.PrivateKey) ed25519.PublicKey {
	var p crypto.PublicKey = k.Public()
	return p.(ed25519.PublicKey) // what an ed25519 key always gives
}
