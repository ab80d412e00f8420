package fleetd

import (
	"context"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/dunlin-edge/dunlin/fleet"
	"github.com/dunlin-edge/dunlin/fleet/enroll"
	"github.com/dunlin-edge/dunlin/fleet/sqlite"
)

// TestCASteps wants each step of a change to be refused out of turn, and one that
// devices have not followed to name them unless it is forced.
func TestCASteps(t *testing.T) {
	dir, _ := newDir(t)
	waitingRollout(t, dir) // enrols meter-1, which has no certificate that is understood
	now := time.Now()
	turn := func(what string, err, want error) {
		t.Helper()
		if !errors.Is(err, want) {
			t.Fatalf("%s: %v, want %v", what, err, want)
		}
		if want == fleet.ErrCADevices && !strings.Contains(err.Error(), "meter-1") {
			t.Errorf("%s names nobody: %v", what, err)
		}
	}
	change := func(force bool) error { _, err := SwitchCA(t.Context(), dir, force, now); return err }
	retire := func(force bool) error { _, err := RetireCA(t.Context(), dir, force, now); return err }
	first, err := CAs(t.Context(), dir)
	if err != nil || len(first.CAs) != 1 || first.Devices != 1 {
		t.Fatal(first, err)
	}
	turn("switch without a second", change(true), fleet.ErrCAState)
	turn("retire without a second", retire(true), fleet.ErrCAState)
	s, err := RotateCA(t.Context(), dir, now.Add(time.Minute))
	if err != nil || len(s.CAs) != 2 || !s.CAs[0].Issues || s.CAs[0].Fingerprint != first.CAs[0].Fingerprint || len(s.Waiting) != 1 {
		t.Fatalf("%+v, %v", s, err)
	}
	_, err = RotateCA(t.Context(), dir, now)
	turn("a third", err, fleet.ErrCAState)
	turn("retire before switch", retire(true), fleet.ErrCAState)
	turn("switch", change(false), fleet.ErrCADevices)
	turn("switch by force", change(true), nil)
	turn("switch again", change(true), fleet.ErrCAState)
	turn("retire", retire(false), fleet.ErrCADevices)
	turn("retire by force", retire(true), nil)
	last, err := CAs(t.Context(), dir)
	if err != nil || len(last.CAs) != 1 || last.CAs[0].Fingerprint != s.CAs[1].Fingerprint {
		t.Errorf("%+v, %v", last, err)
	}
}

// TestRetireSparesWhoWaits wants a CA not to go while a device waits for an operator
// by a token that names it, unless it is forced.
func TestRetireSparesWhoWaits(t *testing.T) {
	dir, _ := newDir(t)
	now := time.Now()
	first, err := CAs(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	old, err := hex.DecodeString(first.CAs[0].Fingerprint)
	if err != nil {
		t.Fatal(err)
	}
	db, err := sqlite.Open(t.Context(), filepath.Join(dir, databaseFile))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	waits := func(id string, ca []byte) {
		t.Helper()
		tok := &fleet.EnrolToken{ID: "tok_" + id, Channel: "dev", Max: 1, Hold: true, Expires: now.Add(time.Hour), Created: now, CA: ca}
		d := &fleet.Device{ID: id, Status: fleet.DevicePending, Channel: "dev", PublicKey: []byte("key of " + id), Enrolled: now}
		err := db.CreateEnrolToken(t.Context(), tok, fleet.Audit{})
		if err == nil {
			_, _, err = db.Enrol(t.Context(), tok.ID, tok.Hash, d, []byte{}, now)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	waits("meter-1", old)
	if _, err := RotateCA(t.Context(), dir, now.Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	s, err := SwitchCA(t.Context(), dir, false, now)
	if err != nil || len(s.Waiting) != 1 || s.Waiting[0].Device != "meter-1" {
		t.Fatalf("%+v, %v", s, err)
	}
	newest, err := hex.DecodeString(s.CAs[0].Fingerprint)
	if err != nil {
		t.Fatal(err)
	}
	waits("meter-2", newest)
	if _, err := RetireCA(t.Context(), dir, false, now); !errors.Is(err, fleet.ErrCADevices) || !strings.Contains(err.Error(), "1 of 2 devices") || !strings.Contains(err.Error(), "meter-1") {
		t.Error(err)
	}
	if _, err := RetireCA(t.Context(), dir, true, now); err != nil {
		t.Error(err)
	}
}

// TestChangeOfCAAtOnce takes all three steps between two looks of the server: it
// follows, and there is nothing to alarm about. Somebody else's CA is refused.
func TestChangeOfCAAtOnce(t *testing.T) {
	dir, _ := newDir(t)
	c, err := LoadConfig(dir)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	s := &server{c: c, log: slog.New(slog.DiscardHandler)}
	if s.keys, err = loadKeys(dir, c.names(), now); err != nil {
		t.Fatal(err)
	}
	s.online.Store(&online{s.keys.catalog, s.keys.director})
	if s.db, err = sqlite.Open(t.Context(), filepath.Join(dir, databaseFile)); err != nil {
		t.Fatal(err)
	}
	defer s.db.Close()
	if err := s.listens("1", "2"); err != nil {
		t.Fatal(err)
	}
	_, rotate := RotateCA(t.Context(), dir, now)
	_, turn := SwitchCA(t.Context(), dir, false, now)
	status, retire := RetireCA(t.Context(), dir, false, now)
	if err := errors.Join(rotate, turn, retire); err != nil {
		t.Fatal(err)
	}
	if changed, err := s.look(); err != nil || !changed || s.standing().CAs[0].Name() != status.CAs[0].Fingerprint {
		t.Errorf("changed %v, %v", changed, err)
	}
	cert, pool := s.tls()
	if _, err := cert.Leaf.Verify(x509.VerifyOptions{DNSName: "localhost", Roots: pool}); err != nil {
		t.Error(err)
	}
	if err := s.sameKeys(); err != nil {
		t.Errorf("upkeep: %v", err)
	}
	other, _ := newDir(t)
	for _, name := range []string{caFile, caKeyFile} {
		b, err := os.ReadFile(filepath.Join(other, name))
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, name), b, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.look(); !errors.Is(err, fleet.ErrServerKeys) {
		t.Errorf("another's CA: %v", err)
	}
}

// TestCertificateOfALongRun serves for years without a restart: the certificate never
// comes near its end.
func TestCertificateOfALongRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir, _ := newDir(t)
		began := time.Now()
		c, err := LoadConfig(dir)
		if err != nil {
			t.Fatal(err)
		}
		s := &server{c: c, log: slog.New(slog.DiscardHandler)}
		if s.keys, err = loadKeys(dir, c.names(), began); err != nil {
			t.Fatal(err)
		}
		if err := s.listens("1", "2"); err != nil {
			t.Fatal(err)
		}
		first, _ := s.tls()
		for _, after := range []time.Duration{enroll.ServerLife / 2, enroll.ServerLife * 2 / 3, enroll.ServerLife, 2 * enroll.ServerLife} {
			time.Sleep(time.Until(began.Add(after)))
			ctx, stop := context.WithTimeout(t.Context(), 3*watchEvery)
			if err := s.watchFace(ctx); err != nil {
				t.Error(err)
			}
			stop()
			now, pool := s.tls()
			if _, err := now.Leaf.Verify(x509.VerifyOptions{DNSName: "localhost", Roots: pool, CurrentTime: time.Now()}); err != nil {
				t.Errorf("after %v: %v", after, err)
			}
			if renewed := now.Leaf.SerialNumber.Cmp(first.Leaf.SerialNumber) != 0; renewed != (after > enroll.ServerLife/2) {
				t.Errorf("after %v: renewed is %v", after, renewed)
			}
			if time.Until(now.Leaf.NotAfter) < enroll.ServerLife/3 {
				t.Errorf("after %v it is good until %v", after, now.Leaf.NotAfter)
			}
		}
	})
}

// TestCAInterrupted wants whatever is on disk between the two writes of a step to be
// the CAs before it or after it, and the next step to sweep.
func TestCAInterrupted(t *testing.T) {
	dir, _ := newDir(t)
	now := time.Now()
	read := func() (certs, keys []byte) {
		t.Helper()
		certs, err := os.ReadFile(filepath.Join(dir, caFile))
		if err != nil {
			t.Fatal(err)
		}
		if keys, err = os.ReadFile(filepath.Join(dir, caKeyFile)); err != nil {
			t.Fatal(err)
		}
		return certs, keys
	}
	half := func(what string, certs, keys []byte, want int) {
		t.Helper()
		nowCerts, nowKeys := read()
		if err := errors.Join(os.WriteFile(filepath.Join(dir, caFile), certs, 0o644), os.WriteFile(filepath.Join(dir, caKeyFile), keys, 0o600)); err != nil {
			t.Fatal(err)
		}
		if s, err := CAs(t.Context(), dir); err != nil || len(s.CAs) != want {
			t.Errorf("%s: %+v, %v", what, s, err)
		}
		if err := errors.Join(os.WriteFile(filepath.Join(dir, caFile), nowCerts, 0o644), os.WriteFile(filepath.Join(dir, caKeyFile), nowKeys, 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	certs1, keys1 := read()
	if _, err := RotateCA(t.Context(), dir, now); err != nil {
		t.Fatal(err)
	}
	certs2, keys2 := read()
	half("rotate, the key is there", certs1, keys2, 1)
	if _, err := SwitchCA(t.Context(), dir, false, now); err != nil {
		t.Fatal(err)
	}
	if _, err := RetireCA(t.Context(), dir, false, now); err != nil {
		t.Fatal(err)
	}
	certs3, keys3 := read()
	half("retire, the certificate has gone", certs3, keys2, 1)
	if string(keys1) == string(keys3) || string(certs2) == string(certs3) {
		t.Error("nothing has changed")
	}
	if err := os.WriteFile(filepath.Join(dir, caKeyFile), keys2, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := RotateCA(t.Context(), dir, now); err != nil {
		t.Fatal(err)
	}
	if _, keys := read(); strings.Count(string(keys), "BEGIN") != 2 {
		t.Error("the key of a retired CA is left")
	}
}

// TestRename wants the two names changed, and nothing else of the file.
func TestRename(t *testing.T) {
	dir, _ := newDir(t)
	path, now := filepath.Join(dir, configFile), time.Now()
	if err := os.WriteFile(path, []byte("# ours\nname: localhost # for people\nheartbeat: 30s\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"", "a b", "https://x", "-x", "localhost", strings.Repeat("a", 300)} {
		if _, err := Rename(t.Context(), dir, name, now); !errors.Is(err, fleet.ErrNameState) {
			t.Errorf("%q: %v", name, err)
		}
	}
	for i, name := range []string{"fleet.example", "::1", "10.0.0.7", "localhost"} {
		if s, err := Rename(t.Context(), dir, name, now); err != nil || s.Name != name || len(s.Former) != min(i+1, 3) {
			t.Errorf("%s: %+v, %v", name, s, err)
		}
	}
	if _, err := Rename(t.Context(), dir, "one.more", now); !errors.Is(err, fleet.ErrNameState) {
		t.Errorf("too many: %v", err)
	}
	c, err := LoadConfig(dir)
	if diff := cmp.Diff([]string{"localhost", "10.0.0.7", "::1", "fleet.example"}, c.names()); diff != "" || err != nil || c.Heartbeat != 30*time.Second {
		t.Error(diff, err)
	}
	if _, err := FinishRename(t.Context(), dir, false, now); err != nil {
		t.Error(err)
	}
	b, err := os.ReadFile(path)
	if err != nil || !strings.HasPrefix(string(b), "# ours\nname: localhost\nheartbeat: 30s\n") {
		t.Errorf("%s, %v", b, err)
	}
}

// TestServingFollowsFiles wants a server that serves to take a change in, and one
// that makes no sense to be left alone.
func TestServingFollowsFiles(t *testing.T) {
	dir, token := newDir(t)
	r := start(t, dir, token)
	defer r.end()
	cas := func() int {
		resp := r.get("/v1/ca", token)
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return strings.Count(string(b), "BEGIN")
	}
	until := func(want int) {
		t.Helper()
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for end := time.Now().Add(20 * time.Second); cas() != want; <-tick.C {
			if time.Now().After(end) {
				t.Fatalf("%d CAs, want %d", cas(), want)
			}
		}
	}
	if cas() != 1 {
		t.Fatal("one CA wanted")
	}
	if _, err := RotateCA(t.Context(), dir, time.Now()); err != nil {
		t.Fatal(err)
	}
	until(2)
	if _, err := SwitchCA(t.Context(), dir, false, time.Now()); err != nil {
		t.Fatal(err)
	}
	good, err := os.ReadFile(filepath.Join(dir, configFile))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, configFile), []byte("nam: x\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if cas() != 2 {
		t.Error("it is not served any more")
	}
	if err := os.WriteFile(filepath.Join(dir, configFile), good, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := RetireCA(t.Context(), dir, false, time.Now()); err != nil {
		t.Fatal(err)
	}
	until(1)
}
