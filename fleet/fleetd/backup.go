package fleetd

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/dunlin-edge/dunlin/fleet"
	"github.com/dunlin-edge/dunlin/fleet/backup"
	"github.com/dunlin-edge/dunlin/fleet/blob"
	"github.com/dunlin-edge/dunlin/fleet/sqlite"
	"github.com/dunlin-edge/dunlin/shared/durable"
)

// What a backup holds of a server's directory; the database comes last.
var (
	plainFiles  = []string{configFile, caFile, serverFile}
	secretFiles = []string{caKeyFile, serverKeyFile, onlineFile}
)

// signaturesOf begins the name of what the policy of a channel in 'signatures' trusts:
// a key, certificates or a trusted root. They may lie anywhere.
const signaturesOf = "signatures-"

// Backup writes a backup of the server in dir into a new file, while the server
// serves or not. Blobs are in it by digest and size. No other command changes the
// directory meanwhile; the server itself may put its next online keys into use.
func Backup(ctx context.Context, dir, out string, passphrase []byte, now time.Time) (*backup.Manifest, error) {
	c, err := LoadConfig(dir)
	if err != nil {
		return nil, err
	}
	if _, err := os.Stat(filepath.Join(dir, databaseFile)); err != nil {
		return nil, fleet.ErrServerAbsent.With("%s holds no database", dir)
	}
	if _, err := os.Lstat(out); !errors.Is(err, os.ErrNotExist) {
		return nil, fleet.ErrBackupExists.With("%s exists already", out)
	}
	lock, err := lockDesk(dir)
	if err != nil {
		return nil, err
	}
	defer lock.Close()
	if _, err := loadKeys(dir, c.names(), now); err != nil {
		return nil, err
	}
	// The keys before the database: whichever roots the copy holds, their keys are
	// here by then.
	b := &contents{dir: dir, conf: c}
	if err := b.read(); err != nil {
		return nil, err
	}
	m := &backup.Manifest{Made: now.UTC().Truncate(time.Second), Server: c.Name, Version: fleet.Version, Blobs: []backup.Blob{}}
	// The copy of the database lies beside the backup: there is room for both, or
	// for neither.
	copied, err := freshTemp("backup.temp", out)
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(copied)
	b.database = filepath.Join(copied, databaseFile)
	if m.Schema, err = sqlite.Backup(ctx, filepath.Join(dir, databaseFile), b.database); err != nil {
		return nil, err
	}
	if err := b.pickOnline(ctx); err != nil {
		return nil, err
	}
	if m.Blobs, err = namedBlobs(ctx, b.database, filepath.Join(dir, "blobs")); err != nil {
		return nil, err
	}
	return m, b.write(out, m, passphrase)
}

// contents is what goes into a backup besides the manifest.
type contents struct {
	dir      string
	conf     Config
	database string // the copy
	secrets  backup.Secrets
	next     []byte // online keys that were ready to take over; nil: none
}

// read takes in the secrets.
func (b *contents) read() (err error) {
	b.secrets = backup.Secrets{}
	for _, name := range secretFiles {
		if b.secrets[name], err = os.ReadFile(filepath.Join(b.dir, name)); err != nil {
			return fmt.Errorf("back up: %w", err)
		}
	}
	b.next, err = os.ReadFile(filepath.Join(b.dir, nextFile))
	if errors.Is(err, os.ErrNotExist) {
		err = nil
	}
	return err
}

// pickOnline keeps those online keys, the ones in use or the next ones, that the roots
// in the copy of the database name.
func (b *contents) pickOnline(ctx context.Context) error {
	db, err := sqlite.OpenReader(ctx, b.database)
	if err != nil {
		return err
	}
	defer db.Close()
	o, err := parseOnline(b.secrets[onlineFile], onlineFile, b.dir)
	if err != nil {
		return err
	}
	err = o.signsFor(ctx, db)
	if !errors.Is(err, fleet.ErrServerOnline) || b.next == nil {
		return err
	}
	if o, err = parseOnline(b.next, nextFile, b.dir); err != nil {
		return err
	}
	b.secrets[onlineFile] = b.next
	return o.signsFor(ctx, db)
}

// freshTemp makes a directory beside path and removes what an interrupted run of
// the same left there.
func freshTemp(op, path string) (string, error) {
	parent, base := filepath.Split(path)
	if parent == "" {
		parent = "."
	}
	if err := durable.MkdirAll(durable.OS{}, op, filepath.Clean(parent), 0o755); err != nil {
		return "", err
	}
	entries, err := os.ReadDir(parent)
	if err != nil {
		return "", err
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), "."+base+".t") && durable.IsTemp(e.Name()) {
			if err := os.RemoveAll(filepath.Join(parent, e.Name())); err != nil {
				return "", err
			}
		}
	}
	return durable.TempDir(durable.OS{}, op, path, 0o700)
}

func (b *contents) write(out string, m *backup.Manifest, passphrase []byte) error {
	var sources []backup.Source
	defer func() {
		for _, x := range sources {
			x.ReadSeeker.(*os.File).Close()
		}
	}()
	add := func(name, path string) error {
		f, err := os.Open(path)
		if err != nil {
			return fmt.Errorf("back up: %w", err)
		}
		sources = append(sources, backup.Source{Name: name, ReadSeeker: f})
		return nil
	}
	for _, name := range plainFiles {
		if err := add(name, filepath.Join(b.dir, name)); err != nil {
			return err
		}
	}
	for _, channel := range slices.Sorted(maps.Keys(b.conf.Signatures)) {
		if err := add(signaturesOf+channel, b.conf.Signatures[channel].Path(b.dir)); err != nil {
			return fleet.ErrServerConfig.With("%s: signatures: %s: %v", configFile, channel, err)
		}
	}
	if err := add(databaseFile, b.database); err != nil {
		return err
	}
	w, err := durable.Create(durable.OS{}, "backup.write", out, 0o600)
	if err != nil {
		return err
	}
	defer w.Abort()
	if err := backup.Write(w, *m, sources, b.secrets, passphrase); err != nil {
		return err
	}
	return w.Commit()
}

// namedBlobs lists the blobs that the releases of a copied database name, with
// their sizes.
func namedBlobs(ctx context.Context, database, dir string) ([]backup.Blob, error) {
	digests, err := sqlite.Blobs(ctx, database)
	if err != nil {
		return nil, err
	}
	slices.Sort(digests)
	store, err := blob.Look(dir)
	if err != nil {
		return nil, err
	}
	out := []backup.Blob{}
	for _, d := range slices.Compact(digests) {
		size, ok, err := store.Has(d)
		if err != nil {
			return nil, err
		}
		if !ok {
			size = -1
		}
		out = append(out, backup.Blob{Digest: d, Size: size})
	}
	return out, nil
}
