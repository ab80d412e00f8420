package crash_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	gofleet "github.com/dunlin-edge/dunlin/fleet"
)

// serving is what must not change on a device while its server is lost.
type serving struct {
	version, place string
	pid            int
	generation     int64
	steps          int // of journeys, ever
}

func (d *device) serving(ctx context.Context) (serving, error) {
	s, err := d.local.Status(ctx)
	if err != nil {
		return serving{}, err
	}
	log, err := os.ReadFile(filepath.Join(d.dir, "agent.log"))
	if err != nil {
		return serving{}, err
	}
	if strings.Contains(string(log), "refresh refused") {
		return serving{}, fmt.Errorf("%s refused: %s", d.name, log)
	}
	for _, m := range s.Models {
		if m.Model == reader && m.Active != nil && m.Step == "" {
			return serving{m.Active.Version, m.Active.Place, m.PID, s.Generation, strings.Count(string(log), "msg=step")}, nil
		}
	}
	return serving{}, fmt.Errorf("%s: %+v", d.name, s.Models)
}

// TestRestoredServerTouchesNobody backs up a server with real agents, rolls one
// of them out further, kills and deletes the server and restores it, all while
// the agents run: the same workers serve in the same places, no step of a journey
// is taken, nothing is refused, and both are reconciled with what they run.
func TestRestoredServerTouchesNobody(t *testing.T) {
	f := newFleet(t)
	var all []*device
	for range lanes {
		d := <-f.devices
		all = append(all, d)
		stop, err := f.start(d)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := stop(); err != nil {
				t.Errorf("%s: %v", d.name, err)
			}
		})
		if err := d.until(t.Context(), "1.1.0"); err != nil {
			t.Fatal(err)
		}
	}
	f.dunlin(t, "device", "label", all[0].name, "way=back")
	dir, file := filepath.Join(f.root, "fleet"), filepath.Join(f.root, "fleet.backup")
	f.dunlinFleet(t, "backup", "--dir", dir, "--out", file)
	f.dunlin(t, "rollout", "create", reader+"@1.0.0", "--channel", "dev", "--to", "way=back", "--stages", "100%", "--control", "0", "--bake", "1s", "--wait")
	before := map[string]serving{}
	for i, version := range []string{"1.0.0", "1.1.0"} {
		s, err := all[i].serving(t.Context())
		if err = errors.Join(err, all[i].until(t.Context(), version)); err != nil {
			t.Fatal(err)
		}
		before[all[i].name] = s
	}

	f.server.Process.Signal(syscall.SIGKILL)
	f.server.Wait()
	blobs := filepath.Join(f.root, "blobs")
	if err := errors.Join(os.Rename(filepath.Join(dir, "blobs"), blobs), os.RemoveAll(dir)); err != nil {
		t.Fatal(err)
	}
	f.dunlinFleet(t, "restore", "--from", file, "--dir", dir, "--blobs", blobs)
	f.launch(t, dir)

	err := poll(t.Context(), func(ctx context.Context) error {
		var left []gofleet.Restored
		if err := json.Unmarshal([]byte(f.dunlinFleet(t, "restore", "status", "--dir", dir, "-o", "json")), &left); err != nil {
			return err
		}
		for _, r := range left {
			if r.Reconciled.IsZero() {
				return fmt.Errorf("%s is not heard of", r.Device)
			}
			for _, x := range r.Records {
				if x.Open() > 0 {
					return fmt.Errorf("%s: %+v", r.Device, x)
				}
				if x.Lost > 0 {
					t.Errorf("%s lost records: %+v", r.Device, x)
				}
			}
		}
		if len(left) != lanes {
			return fmt.Errorf("%d devices", len(left))
		}
		for _, d := range all {
			s, err := d.serving(ctx)
			if err != nil {
				return err
			}
			if s.generation <= gofleet.RestoreJump {
				return fmt.Errorf("%s is at generation %d", d.name, s.generation)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Log(f.dunlinFleet(t, "restore", "status", "--dir", dir))
	for i, version := range []string{"1.0.0", "1.1.0"} {
		d := all[i]
		after, err := d.serving(t.Context())
		if err = errors.Join(err, d.until(t.Context(), version)); err != nil {
			t.Fatal(err)
		}
		t.Logf("%s: %+v, then %+v", d.name, before[d.name], after)
		after.generation = before[d.name].generation
		if after != before[d.name] {
			t.Errorf("%s was touched: %+v, before %+v", d.name, after, before[d.name])
		}
	}
}
