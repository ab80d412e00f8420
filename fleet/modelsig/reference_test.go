package modelsig

import (
	"crypto/elliptic"
	"crypto/x509"
	"encoding/pem"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// reference runs the reference tool; 'make readers' puts it there.
func reference(t *testing.T, args ...string) error {
	t.Helper()
	tool, err := filepath.Abs("../../build/reference/model-signing/bin/model_signing")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(tool); err != nil {
		t.Fatalf("%v: run 'make readers'", err)
	}
	out, err := exec.CommandContext(t.Context(), tool, args...).CombinedOutput()
	t.Logf("model_signing %v\n%s", args, out)
	return err
}

// kit is a key with all that both sides want of it, in files.
type kit struct {
	signer                     *Signer
	private, public, cert, ca  string
	wantKey, wantCert          *Policy
	otherPublic, otherRootCert string
}

func newKit(t *testing.T, curve elliptic.Curve) kit {
	t.Helper()
	dir, k := t.TempDir(), ecKey(t, curve)
	wide := func(c *x509.Certificate) {
		c.NotBefore, c.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	}
	root := authority{}.issue(t, "root", ecKey(t, elliptic.P256()), func(c *x509.Certificate) { isCA(c); wide(c) })
	other := authority{}.issue(t, "other", ecKey(t, elliptic.P256()), func(c *x509.Certificate) { isCA(c); wide(c) })
	leaf := root.issue(t, "signer", k, wide)
	der, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		t.Fatal(err)
	}
	public, err := publicPEM(&k.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	otherPublic, err := publicPEM(&ecKey(t, curve).PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	file := func(name string, b []byte) string {
		path := filepath.Join(dir, name)
		write(t, path, b)
		return path
	}
	out := kit{
		private: file("key.pem", pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})), public: file("key.pub", public),
		cert: file("cert.pem", pemOf(leaf)), ca: file("ca.pem", pemOf(root)),
		otherPublic: file("other.pub", otherPublic), otherRootCert: file("other.pem", pemOf(other)),
	}
	b, err := os.ReadFile(out.private)
	if err != nil {
		t.Fatal(err)
	}
	if out.signer, err = NewSigner(b, passphrase); err != nil {
		t.Fatal(err)
	}
	if out.wantKey, err = (Requirement{Key: out.public}).Load(""); err != nil {
		t.Fatal(err)
	}
	out.wantCert, err = (Requirement{Cert: out.ca}).Load("")
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestReferenceVerifiesOurs(t *testing.T) {
	for name, curve := range map[string]elliptic.Curve{"P-256": elliptic.P256(), "P-384": elliptic.P384(), "P-521": elliptic.P521()} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			k := newKit(t, curve)
			dir := folder(t, content, sign(t, k.signer, content))
			verify := func(public string) error {
				return reference(t, "verify", "key", "--signature", filepath.Join(dir, Name), "--public_key", public, dir)
			}
			if err := verify(k.public); err != nil {
				t.Errorf("the reference tool refuses ours: %v", err)
			}
			if verify(k.otherPublic) == nil {
				t.Error("the reference tool takes any key")
			}
			if b, err := os.ReadFile(k.cert); err != nil || k.signer.Certify(b) != nil {
				t.Fatal(err)
			}
			dir = folder(t, content, sign(t, k.signer, content))
			verify = func(ca string) error {
				return reference(t, "verify", "certificate", "--signature", filepath.Join(dir, Name), "--certificate_chain", ca, dir)
			}
			if err := verify(k.ca); err != nil {
				t.Errorf("the reference tool refuses our certificates: %v", err)
			}
			if verify(k.otherRootCert) == nil {
				t.Error("the reference tool takes any authority")
			}
			write(t, filepath.Join(dir, "labels.txt"), []byte("x"))
			if verify(k.ca) == nil {
				t.Error("the reference tool takes an altered file")
			}
		})
	}
}

func TestOursVerifiesReference(t *testing.T) {
	for name, curve := range map[string]elliptic.Curve{"P-256": elliptic.P256(), "P-384": elliptic.P384(), "P-521": elliptic.P521()} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			k := newKit(t, curve)
			byKey, byCert := folder(t, content, nil), folder(t, content, nil)
			if err := reference(t, "sign", "key", "--signature", filepath.Join(byKey, Name), "--private_key", k.private, byKey); err != nil {
				t.Fatal(err)
			}
			if err := reference(t, "sign", "certificate", "--signature", filepath.Join(byCert, Name), "--private_key", k.private,
				"--signing_certificate", k.cert, "--certificate_chain", k.ca, byCert); err != nil {
				t.Fatal(err)
			}
			for dir, policy := range map[string]*Policy{byKey: k.wantKey, byCert: k.wantCert} {
				if _, err := VerifyFolder(dir, "", policy, time.Now()); err != nil {
					t.Errorf("method %s: %v", policy.method(), err)
				}
				write(t, filepath.Join(dir, "labels.txt"), []byte("x"))
				if _, err := VerifyFolder(dir, "", policy, time.Now()); code(err) != CodeDigest {
					t.Errorf("method %s, altered: %v", policy.method(), err)
				}
			}
		})
	}
	t.Run("one file", func(t *testing.T) {
		k := newKit(t, elliptic.P256())
		dir := folder(t, content, nil)
		model, signature := filepath.Join(dir, "model.tflite"), filepath.Join(dir, Name)
		if err := reference(t, "sign", "key", "--signature", signature, "--private_key", k.private, model); err != nil {
			t.Fatal(err)
		}
		if _, err := VerifyFile(model, signature, k.wantKey, time.Now()); err != nil {
			t.Error(err)
		}
	})
}
