// Package journeys runs scripts against the real binaries, as a person would.
package journeys

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// programs are built once for all scripts, each under a name.
var programs = map[string]string{
	"dunlin": "./fleet/cmd/dunlin", "dunlin-fleet": "./fleet/cmd/dunlin-fleet", "dunlin-agent": "./agent/cmd/dunlin-agent", "dunlin-infer": "./agent/cmd/dunlin-infer",
	"sigstore-kms-test": "./testbed/plugin", "standin": "./testbed/standin",
}

const root = "../.."

var bin string // folder of the built programs

func TestMain(m *testing.M) {
	code, err := buildAndRun(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

func buildAndRun(m *testing.M) (int, error) {
	var err error
	if bin, err = os.MkdirTemp("", "journeys"); err != nil {
		return 0, err
	}
	defer os.RemoveAll(bin)
	for name, p := range programs {
		cmd := exec.Command("go", "build", "-o", filepath.Join(bin, name), p)
		cmd.Dir, cmd.Env = root, append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			return 0, fmt.Errorf("build %s: %w\n%s", p, err, out)
		}
	}
	if err := signKey(filepath.Join(bin, "sign.pem")); err != nil {
		return 0, err
	}
	return m.Run(), nil
}

// signKey makes the key that signs what scripts pack. It has no passphrase, because
// scripts give theirs to other keys.
func signKey(path string) error {
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	der, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		return err
	}
	return os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600)
}

const scriptLimit = 4 * time.Minute

// TestJourneys runs every script of testdata. Scripts find the programs on PATH, a
// key that signs what they pack in $DUNLIN_SIGN_KEY,
// the trained models below $DIGITS, the official runtime libraries below $RUNTIME,
// which 'make runtime' puts there, and the reference tool of model signing in
// $REFERENCE, by 'make readers'.
func TestJourneys(t *testing.T) {
	digits, err := filepath.Abs(root + "/testbed/models/digits")
	if err != nil {
		t.Fatal(err)
	}
	runtimes, err := filepath.Abs(root + "/build/runtime/litert-2.3.0")
	if err != nil {
		t.Fatal(err)
	}
	reference, err := filepath.Abs(root + "/build/reference/model-signing/bin")
	if err != nil {
		t.Fatal(err)
	}
	testscript.Run(t, testscript.Params{
		Deadline: time.Now().Add(scriptLimit), // a script that hangs shows how far it came
		Dir:      "testdata",
		Setup: func(e *testscript.Env) error {
			e.Setenv("PATH", bin+string(os.PathListSeparator)+e.Getenv("PATH"))
			e.Setenv("DUNLIN_SIGN_KEY", filepath.Join(bin, "sign.pem"))
			e.Setenv("DIGITS", digits)
			e.Setenv("RUNTIME", runtimes)
			e.Setenv("REFERENCE", reference)
			e.Setenv("GOARCH", runtime.GOARCH)
			return nil
		},
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){"cut": cut, "flip": flip, "secret": secret, "ready": ready, "api": api, "device": device, "arm64": arm64, "until": until, "images": images, "modelwith": modelwith,
			"broker": localBroker, "probe": probe, "publish": publish, "answers": answers},
	})
}

// cut shortens a file to a percentage: cut FILE PERCENT.
func cut(ts *testscript.TestScript, _ bool, args []string) {
	b := []byte(ts.ReadFile(args[0]))
	var percent int
	if _, err := fmt.Sscan(args[1], &percent); err != nil {
		ts.Fatalf("cut: %v", err)
	}
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), b[:len(b)*percent/100], 0o644))
}

// flip inverts a bit in the middle of the largest file of a folder: flip FOLDER.
func flip(ts *testscript.TestScript, _ bool, args []string) {
	var largest string
	var size int64
	entries, err := os.ReadDir(ts.MkAbs(args[0]))
	ts.Check(err)
	for _, e := range entries {
		if info, err := e.Info(); err == nil && info.Size() > size {
			largest, size = filepath.Join(ts.MkAbs(args[0]), e.Name()), info.Size()
		}
	}
	b, err := os.ReadFile(largest)
	ts.Check(err)
	b[len(b)/2] ^= 1
	ts.Check(os.WriteFile(largest, b, 0o644))
}
