package kms

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sigstore/sigstore/pkg/signature"

	"github.com/dunlin-edge/dunlin/fleet"
)

// TestMain builds the plug-in of testbed/plugin and puts it on PATH.
func TestMain(m *testing.M) {
	code, err := build(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

func build(m *testing.M) (int, error) {
	dir, err := os.MkdirTemp("", "plugin")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(dir)
	cmd := exec.Command("go", "build", "-o", filepath.Join(dir, Prefix+"test"), "../../testbed/plugin")
	if out, err := cmd.CombinedOutput(); err != nil {
		return 0, fmt.Errorf("build the plug-in: %w\n%s", err, out)
	}
	if err := os.Setenv("PATH", dir+string(os.PathListSeparator)+os.Getenv("PATH")); err != nil {
		return 0, err
	}
	return m.Run(), nil
}

// TestSign signs with both kinds of keys that devices know.
func TestSign(t *testing.T) {
	message := bytes.Repeat([]byte("metadata "), 100_000)
	for _, ref := range []string{"test://ed25519/alice", "test://p256/bob", "test://chatters/ed25519/carol"} {
		var heard bytes.Buffer
		s, err := Open(t.Context(), ref, Config{Stderr: &heard})
		if err != nil {
			t.Errorf("%s: %v", ref, err)
			continue
		}
		sig, err := s.SignMessage(bytes.NewReader(message))
		if err != nil {
			t.Errorf("%s: %v", ref, err)
			continue
		}
		public, err := s.PublicKey()
		if err != nil {
			t.Fatal(err)
		}
		v, err := signature.LoadVerifier(public, hash)
		if err != nil {
			t.Fatal(err)
		}
		if err := v.VerifySignature(bytes.NewReader(sig), bytes.NewReader(message)); err != nil {
			t.Errorf("%s: %v", ref, err)
		}
		if s.Reference() != ref || heard.Len() > 2*maxComplaint {
			t.Errorf("%s: %d bytes were passed on", s.Reference(), heard.Len())
		}
	}
}

// TestBadPlugins wants every plug-in that is not as it should be refused in time,
// under a code that says what is wrong.
func TestBadPlugins(t *testing.T) {
	quick := Config{Timeout: time.Second}
	for ref, want := range map[string]string{
		"":                                   CodeReference,
		"test":                               CodeReference,
		"test://":                            CodeReference,
		"../test://ed25519/a":                CodeReference,
		"a/b://ed25519/a":                    CodeReference,
		"test://ed25519/a b":                 CodeReference,
		"test://" + strings.Repeat("a", 2e3): CodeReference,
		"nothing://ed25519/a":                CodeAbsent,
		"test://ed448/a":                     CodeRefused,
		"test://refuses/ed25519/a":           CodeRefused,
		"test://hangs/ed25519/a":             CodeTimeout,
		"test://hangs-signing/ed25519/a":     CodeTimeout,
		"test://forks/ed25519/a":             CodeTimeout,
		"test://floods/ed25519/a":            CodeAnswer,
		"test://crashes/ed25519/a":           CodeAnswer,
		"test://silent/ed25519/a":            CodeAnswer,
		"test://garbage/ed25519/a":           CodeAnswer,
		"test://forgets/ed25519/a":           CodeAnswer,
		"test://no-key/ed25519/a":            CodeAnswer,
		"test://p384/a":                      CodeKey,
		"test://rsa/a":                       CodeKey,
		"test://other-key/ed25519/a":         CodeSignature,
		"test://other-key/p256/a":            CodeSignature,
		"test://bad-signature/ed25519/a":     CodeSignature,
	} {
		began := time.Now()
		s, err := Open(t.Context(), ref, quick)
		if err == nil {
			_, err = s.SignMessage(strings.NewReader("message"))
		}
		var refused *fleet.Error
		if !errors.As(err, &refused) || refused.Code != want || refused.Next == "" {
			t.Errorf("%.40q: %v, want %s", ref, err, want)
		}
		if err != nil && strings.ContainsAny(err.Error(), "\x1b\n") {
			t.Errorf("%s: what it says reaches the terminal as it is: %q", ref, err)
		}
		if took := time.Since(began); took > 20*time.Second {
			t.Errorf("%s: refused after %v", ref, took)
		}
	}
}

// TestLong wants what is too long to be sent refused, not cut.
func TestLong(t *testing.T) {
	s, err := Open(t.Context(), "test://ed25519/alice", Config{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.SignMessage(bytes.NewReader(make([]byte, maxMessage+1))); err == nil {
		t.Error("a message of any length is signed")
	}
}

// FuzzAnswer gives the client whatever a plug-in may write.
func FuzzAnswer(f *testing.F) {
	for _, seed := range []string{"", "{}", `{"errorMessage":"no"}`, `{"publicKey":null}`, `{"signMessage":{"signature":"AAAA"}}`, `{"publicKey":{"publicKeyPEM":"LS0t"}}`, "[", `{"errorMessage":"\u001b["}`} {
		f.Add([]byte(seed))
	}
	s := &Signer{program: Prefix + "test", ref: "test://a"}
	f.Fuzz(func(t *testing.T, b []byte) {
		resp, err := s.answer(b, nil)
		if (resp == nil) == (err == nil) {
			t.Errorf("%v, %v", resp, err)
		}
	})
}
