package crash_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/dunlin-edge/dunlin/fleet/backup"
	"github.com/dunlin-edge/dunlin/fleet/catalog/catalogtest"
	"github.com/dunlin-edge/dunlin/fleet/fleetd"
	"github.com/dunlin-edge/dunlin/testbed/crash"
	"github.com/dunlin-edge/dunlin/testbed/lab"
)

const backupPassphrase = "a passphrase of the test"

// restoreSamples is how many points are killed with -short.
const restoreSamples = 25

// TestKilledRestore kills a restore and a backup in front of every change of a
// file: afterwards there is nothing, or a whole server or backup, and the same
// command succeeds then.
func TestKilledRestore(t *testing.T) {
	root, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(root, "dunlin-fleet")
	build := exec.Command("go", "build", "-o", program, "./fleet/cmd/dunlin-fleet")
	build.Dir, build.Env = repository, append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	s := lab.Start(t)
	s.Publish(catalogtest.Runtime(t, "arm64", "2.3.0", []byte("library")))
	s.Publish(catalogtest.Model(t, "reader", "1.0.0", []byte("one")))
	for _, id := range []string{"meter-1", "meter-2", "meter-3"} {
		s.Enrol(id)
	}
	file := filepath.Join(root, "first.backup")
	if _, err := fleetd.Backup(t.Context(), s.Dir, file, []byte(backupPassphrase), time.Now()); err != nil {
		t.Fatal(err)
	}
	env := append(os.Environ(), "DUNLIN_PASSPHRASE="+backupPassphrase)
	into, out := filepath.Join(root, "restored"), filepath.Join(root, "backups")
	to, next := filepath.Join(into, "fleet"), filepath.Join(out, "next.backup")
	t.Run("restore", func(t *testing.T) {
		c := crash.Command{Path: program, Env: env, Under: []string{into}, Args: []string{"restore", "--from", file, "--dir", to, "--blobs", filepath.Join(s.Dir, "blobs")}}
		killAll(t, c, into, func(over bool) error { return wholeServer(t, into, to, over) })
	})
	t.Run("backup", func(t *testing.T) {
		c := crash.Command{Path: program, Env: env, Under: []string{out}, Args: []string{"backup", "--dir", s.Dir, "--out", next}}
		killAll(t, c, out, func(over bool) error { return wholeBackup(out, next, over) })
	})
}

// killAll kills c in front of each of its points, with dir empty before each, and
// then runs it plainly unless it was done already.
func killAll(t *testing.T, c crash.Command, dir string, inspect func(over bool) error) {
	empty := func() {
		if err := errors.Join(os.RemoveAll(dir), os.MkdirAll(dir, 0o700)); err != nil {
			t.Fatal(err)
		}
	}
	empty()
	points, err := crash.Count(t.Context(), c)
	if err := errors.Join(err, inspect(true)); err != nil {
		t.Fatal(err)
	}
	step := 1
	if testing.Short() {
		step = max(1, len(points)/restoreSamples)
	}
	killed, done := 0, 0
	for at := 1; at <= len(points); at += step {
		empty()
		r, err := crash.Run(t.Context(), c, at)
		if err != nil {
			t.Fatal(err)
		}
		if r.Killed {
			killed++
		}
		switch err := inspect(false); {
		case err == nil:
			done++
			continue
		case !errors.Is(err, os.ErrNotExist):
			t.Errorf("after a kill at %v: %v", r.Points[len(r.Points)-1], err)
			continue
		}
		if out, err := command(c).CombinedOutput(); err != nil {
			t.Errorf("again after a kill at %v: %v: %s", r.Points[len(r.Points)-1], err, out)
		}
		if err := inspect(true); err != nil {
			t.Errorf("again after a kill at %v: %v", r.Points[len(r.Points)-1], err)
		}
	}
	t.Logf("%d points, %d killed, %d of them when all was done, 0 bad wanted", len(points), killed, done)
}

func command(c crash.Command) *exec.Cmd {
	cmd := exec.Command(c.Path, c.Args...)
	cmd.Env = c.Env
	return cmd
}

// entries lists dir; over wants nothing besides one name.
func entries(dir, want string, over bool) error {
	es, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	var names []string
	for _, e := range es {
		names = append(names, e.Name())
	}
	if over && !slices.Equal(names, []string{want}) {
		return fmt.Errorf("left over: %v", names)
	}
	if !slices.Contains(names, want) {
		return os.ErrNotExist
	}
	return nil
}

func wholeServer(t *testing.T, in, dir string, over bool) error {
	if err := entries(in, filepath.Base(dir), over); err != nil {
		return err
	}
	left, err := fleetd.RestoreStatus(t.Context(), dir)
	if err != nil {
		return fmt.Errorf("half a server: %v", err)
	}
	if len(left) != 3 {
		return fmt.Errorf("%d devices restored", len(left))
	}
	// What was restored can be backed up: every file is there and whole.
	file := filepath.Join(t.TempDir(), "again.backup")
	m, err := fleetd.Backup(t.Context(), dir, file, []byte(backupPassphrase), time.Now())
	if err != nil {
		return fmt.Errorf("half a server: %v", err)
	}
	for _, b := range m.Blobs {
		if b.Size < 0 {
			return fmt.Errorf("blob %s is missing", b.Digest)
		}
	}
	return nil
}

func wholeBackup(in, file string, over bool) error {
	if err := entries(in, filepath.Base(file), over); err != nil {
		return err
	}
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return err
	}
	if _, err := backup.Open(f, st.Size(), []byte(backupPassphrase)); err != nil {
		return fmt.Errorf("half a backup: %v", err)
	}
	return nil
}
