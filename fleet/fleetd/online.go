package fleetd

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/dunlin-edge/dunlin/fleet"
	"github.com/dunlin-edge/dunlin/fleet/catalog"
	"github.com/dunlin-edge/dunlin/fleet/sqlite"
	"github.com/dunlin-edge/dunlin/fleet/upkeep"
	"github.com/dunlin-edge/dunlin/shared/durable"
)

// nextFile holds online keys that are ready to take over once holders have named
// them in new roots.
const nextFile = "online-keys-next.json"

// OnlineRoles are the server's keys by name.
var OnlineRoles = []string{"snapshot", "timestamp", "director"}

// online are the private keys of a server's online roles.
type online struct {
	catalog  catalog.Keys
	director ed25519.PrivateKey
}

// loadOnline reads keys of a file in dir; nil when there is no such file.
func loadOnline(dir, file string) (*online, error) {
	b, err := os.ReadFile(filepath.Join(dir, file))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fleet.ErrServerKeys.With("%s in %s: %v", file, dir, err)
	}
	return parseOnline(b, file, dir)
}

// parseOnline reads what is in such a file; the names are for people.
func parseOnline(b []byte, file, dir string) (*online, error) {
	var o onlineKeys
	if err := json.Unmarshal(b, &o); err != nil {
		return nil, fleet.ErrServerKeys.With("%s in %s: %v", file, dir, err)
	}
	for _, seed := range [][]byte{o.Snapshot, o.Timestamp, o.Director} {
		if len(seed) != ed25519.SeedSize {
			return nil, fleet.ErrServerKeys.With("%s in %s: a key is damaged", file, dir)
		}
	}
	return &online{catalog.Keys{Snapshot: ed25519.NewKeyFromSeed(o.Snapshot), Timestamp: ed25519.NewKeyFromSeed(o.Timestamp)}, ed25519.NewKeyFromSeed(o.Director)}, nil
}

// signsFor returns ErrServerOnline when these are not the keys that the newest roots
// of a database name; before there are roots any keys are good.
func (o *online) signsFor(ctx context.Context, db *sqlite.DB) error {
	for _, repo := range []string{catalog.Repo, catalog.RepoDirector} {
		if roots, err := db.Roots(ctx, repo); err != nil || len(roots) == 0 {
			return err
		}
	}
	named, err := (&catalog.Service{Store: db}).Named(ctx, &catalog.Online{Keys: o.catalog, Director: publicOf(o.director)})
	if err == nil && !named {
		err = fleet.ErrServerOnline
	}
	return err
}

// public are the public halves as the API tells them.
func (o *online) public() map[string][]byte {
	return map[string][]byte{"catalog_snapshot": publicOf(o.catalog.Snapshot), "catalog_timestamp": publicOf(o.catalog.Timestamp), "director": publicOf(o.director)}
}

// RotateOnline makes the next keys of some online roles; the others stay as they
// are. They take over when holders have named them: 'dunlin keys rotate online'.
func RotateOnline(ctx context.Context, dir string, roles []string, now time.Time) error {
	return openDesk(ctx, dir, func(d *desk) error {
		if len(roles) == 0 {
			roles = OnlineRoles
		}
		o, err := loadOnline(dir, onlineFile)
		if err != nil {
			return err
		}
		for _, r := range roles {
			_, k, err := ed25519.GenerateKey(rand.Reader)
			if err != nil {
				return err
			}
			switch r {
			case "snapshot":
				o.catalog.Snapshot = k
			case "timestamp":
				o.catalog.Timestamp = k
			case "director":
				o.director = k
			default:
				return fleet.ErrBadRequest.With("role %q: %s wanted", r, strings.Join(OnlineRoles, ", "))
			}
		}
		b, err := json.Marshal(onlineKeys{o.catalog.Snapshot.Seed(), o.catalog.Timestamp.Seed(), o.director.Seed()})
		if err != nil {
			return err
		}
		if err := d.audit(ctx, "keys.rotate", strings.Join(roles, ", "), now); err != nil {
			return err
		}
		return d.write("online.next", nextFile, b, 0o600)
	})
}

// next are the keys that are ready to take over, for the catalog.
func (s *server) nextKeys() (*catalog.Online, error) {
	o, err := loadOnline(s.c.Dir, nextFile)
	if err != nil || o == nil {
		return nil, err
	}
	return &catalog.Online{Keys: o.catalog, Director: publicOf(o.director)}, nil
}

// tookKeys has the server sign with the keys that new roots name.
func (s *server) tookKeys(c *catalog.Online) error {
	o, err := loadOnline(s.c.Dir, nextFile)
	if err != nil {
		return err
	}
	if o == nil || !publicOf(o.director).Equal(c.Director) || !o.catalog.Snapshot.Equal(c.Snapshot) || !o.catalog.Timestamp.Equal(c.Timestamp) {
		return fleet.ErrServerKeys.With("%s changed while it was put into use: restart the server", nextFile)
	}
	s.director.Use(o.director)
	s.online.Store(o)
	if err := s.promoteKeys(); err != nil {
		return err
	}
	s.log.Info("online keys changed")
	s.wakeTell()
	return nil
}

// promoteKeys makes the next keys those that the server starts with.
func (s *server) promoteKeys() error {
	b, err := os.ReadFile(filepath.Join(s.c.Dir, nextFile))
	if err != nil {
		return err
	}
	if err := durable.WriteFile(durable.OS{}, "online.took", filepath.Join(s.c.Dir, onlineFile), b, 0o600); err != nil {
		return err
	}
	return durable.Remove(durable.OS{}, "online.next", filepath.Join(s.c.Dir, nextFile))
}

// settleKeys finishes what a server that was killed had begun: the newest roots name
// the next keys.
func (s *server) settleKeys(ctx context.Context) error {
	next, err := loadOnline(s.c.Dir, nextFile)
	if err != nil || next == nil {
		return err
	}
	named, err := s.catalog.Named(ctx, &catalog.Online{Keys: next.catalog, Director: publicOf(next.director)})
	if err != nil || !named {
		return err
	}
	if err := s.promoteKeys(); err != nil {
		return err
	}
	s.keys.catalog, s.keys.director = next.catalog, next.director
	s.catalog.Keys, s.catalog.Director = next.catalog, publicOf(next.director)
	return nil
}

// onlineKeys are the public halves of the keys in use, and of the next ones.
func (s *server) onlineJSON() []byte {
	v := map[string]any{}
	for name, key := range s.online.Load().public() {
		v[name] = key
	}
	if next, err := loadOnline(s.c.Dir, nextFile); err == nil && next != nil {
		v["next"] = next.public()
	}
	b, err := json.Marshal(v)
	if err != nil {
		return nil // maps of bytes
	}
	return b
}

func (s *server) upkeep() *upkeep.Service {
	return &upkeep.Service{Catalog: s.catalog, Director: s.director, Alarms: s.alarms, Keys: s.sameKeys, Dir: s.c.Dir, Now: time.Now, Log: s.log}
}

// sameKeys reads the keys of the directory again, as a restart would.
func (s *server) sameKeys() error {
	if _, err := s.look(); err != nil {
		return err
	}
	k, err := loadKeys(s.c.Dir, []string{s.c.Name}, time.Now())
	if err != nil {
		return err
	}
	using, err := json.Marshal(s.online.Load().public())
	if err != nil {
		return err
	}
	if string(k.online) != string(using) {
		return fleet.ErrServerKeys.With("the keys in %s are not those that the server was started with", s.c.Dir)
	}
	return nil
}
