package pack

import (
	"crypto/sha256"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/dunlin-edge/dunlin/fleet/modelsig"
	"github.com/dunlin-edge/dunlin/shared/bundle"
)

var today = time.Date(2026, 11, 23, 0, 0, 0, 0, time.UTC)

// newSigner makes a key, and the file with its public half.
func newSigner(t *testing.T) (s *modelsig.Signer, public string) {
	t.Helper()
	pass := func(bool) ([]byte, error) { return []byte("a long passphrase"), nil }
	private, pub, err := modelsig.NewKey(pass)
	if err != nil {
		t.Fatal(err)
	}
	if s, err = modelsig.NewSigner(private, pass); err != nil {
		t.Fatal(err)
	}
	public = filepath.Join(t.TempDir(), "vendor.pub")
	if err := os.WriteFile(public, pub, 0o644); err != nil {
		t.Fatal(err)
	}
	return s, public
}

func policy(t *testing.T, public string) *modelsig.Policy {
	t.Helper()
	p, err := modelsig.Requirement{Key: public}.Load("")
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// written packs, signs and writes a bundle, and opens it again.
func written(t *testing.T, s *modelsig.Signer) *bundle.Bundle {
	t.Helper()
	p, err := pack(t, nil)
	if err != nil {
		t.Fatal(err)
	}
	if s != nil {
		if err := p.Sign(s); err != nil {
			t.Fatal(err)
		}
	}
	return opened(t, p)
}

func opened(t *testing.T, p *Plan) *bundle.Bundle {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "out")
	if err := p.Write(dir); err != nil {
		t.Fatal(err)
	}
	b, err := bundle.OpenLayout(os.DirFS(dir))
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Verify(); err != nil {
		t.Fatal(err)
	}
	return b
}

func TestSignedBundle(t *testing.T) {
	s, public := newSigner(t)
	b := written(t, s)
	st, err := modelsig.VerifyBundle(b, policy(t, public), today)
	if err != nil {
		t.Fatal(err)
	}
	if st.Len() != len(b.Manifest.Layers)-1 {
		t.Errorf("%d files are signed of %d", st.Len(), len(b.Manifest.Layers))
	}
	if err := b.Check(); err != nil {
		t.Error(err)
	}
	if d, _ := b.Manifest.Lookup(modelsig.Name); d.MediaType != bundle.MediaTypeSigstore {
		t.Errorf("media type %s", d.MediaType)
	}
	if again := written(t, s); again.Digest != b.Digest {
		t.Errorf("equal folder and key: %s and %s", b.Digest, again.Digest)
	}
	plain := written(t, nil)
	if plain.Digest == b.Digest {
		t.Error("the signature is not part of the bundle")
	}
	if _, err := modelsig.VerifyBundle(plain, policy(t, public), today); code(err) != modelsig.CodeMissing {
		t.Errorf("a bundle without signature: %v", err)
	}
	_, other := newSigner(t)
	if _, err := modelsig.VerifyBundle(b, policy(t, other), today); code(err) != modelsig.CodeIdentity {
		t.Errorf("a bundle signed by another: %v", err)
	}
}

// TestBundleAttacks packs what somebody made of a signed bundle: with digests that
// are right, and the old signature.
func TestBundleAttacks(t *testing.T) {
	s, public := newSigner(t)
	b := written(t, s)
	signature, err := b.ReadFile(modelsig.Name)
	if err != nil {
		t.Fatal(err)
	}
	carry := strings.Replace(spec, "files: [docs/card.md]", "files: [docs/card.md, model.sig]", 1)
	for name, c := range map[string]struct {
		spec    string
		changes map[string]string
		want    string
	}{
		"as it was":     {spec: carry},
		"file added":    {strings.Replace(carry, "model.sig]", "model.sig, run.py]", 1), map[string]string{"run.py": "evil"}, modelsig.CodeFile},
		"file removed":  {strings.Replace(carry, "docs/card.md, ", "", 1), nil, modelsig.CodeFile},
		"file altered":  {carry, map[string]string{"labels.txt": "x\ny\nz\n"}, modelsig.CodeDigest},
		"file renamed":  {strings.Replace(carry, "docs/card.md", "docs/CARD.md", 1), map[string]string{"docs/CARD.md": "# Gate\n"}, modelsig.CodeFile},
		"only contract": {strings.Replace(carry, "minutes: 0.5", "minutes: 0", 1), nil, modelsig.CodeDigest},
	} {
		t.Run(name, func(t *testing.T) {
			changes := map[string]string{SpecName: c.spec, modelsig.Name: string(signature)}
			maps.Copy(changes, c.changes)
			p, err := pack(t, changes)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := modelsig.VerifyBundle(opened(t, p), policy(t, public), today); code(err) != c.want {
				t.Errorf("%v, wanted %q", err, c.want)
			}
		})
	}
}

// signedFolder is a folder that somebody signed but for model.yaml, which was
// written afterwards.
func signedFolder(t *testing.T, s *modelsig.Signer, yaml string, unsigned ...string) string {
	t.Helper()
	dir := folder(t, map[string]string{SpecName: yaml})
	var files []modelsig.File
	for _, name := range []string{"labels.txt", "docs/card.md", "model.tflite", "golden.npz", "reference.npz"} {
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Contains(unsigned, name) {
			files = append(files, modelsig.File{Name: name, Digest: sha256.Sum256(b)})
		}
	}
	raw, err := s.Sign("gate", files)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, modelsig.Name), raw, 0o644); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestPackRequiresSignature(t *testing.T) {
	s, public := newSigner(t)
	_, other := newSigner(t)
	signing := func(line string) string { return spec + "signing: {" + line + "}\n" }
	for name, c := range map[string]struct {
		dir  string
		flag *modelsig.Policy
		want string
	}{
		"signed":                 {dir: signedFolder(t, s, signing("key: "+public))},
		"signed, by the flag":    {dir: signedFolder(t, s, spec), flag: policy(t, public)},
		"not signed":             {dir: folder(t, map[string]string{SpecName: signing("key: " + public)}), want: modelsig.CodeMissing},
		"by another":             {dir: signedFolder(t, s, signing("key: "+other)), want: modelsig.CodeIdentity},
		"flag and model.yaml":    {dir: signedFolder(t, s, signing("key: "+public)), flag: policy(t, other), want: modelsig.CodeIdentity},
		"golden not signed":      {dir: signedFolder(t, s, signing("key: "+public), "golden.npz"), want: modelsig.CodeFile},
		"golden may be unsigned": {dir: signedFolder(t, s, signing("key: "+public+", unsigned: [golden.npz]"), "golden.npz")},
		"two kinds of signer":    {dir: signedFolder(t, s, signing("key: "+public+", cert: ca.pem")), want: modelsig.CodePolicy},
		"unknown word":           {dir: signedFolder(t, s, signing("keys: "+public)), want: "pack.spec"},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := Model(Config{Dir: c.dir, Signature: c.flag, Now: today}); code(err) != c.want {
				t.Errorf("%v, wanted %q", err, c.want)
			}
		})
	}
}

// swap answers a question, and changes a file while everybody waits for it.
type swap struct{ file string }

func (s swap) Ask(Question) (string, error) {
	return "tensor", os.WriteFile(s.file, []byte("x\ny\nz\n"), 0o644)
}

// TestPackedIsWhatWasVerified: a file that is changed between its verification and
// packing is noticed.
func TestPackedIsWhatWasVerified(t *testing.T) {
	s, public := newSigner(t)
	asks := strings.Replace(spec, "input: tensor\n", "", 1) + "signing: {key: " + public + "}\n"
	dir := signedFolder(t, s, asks)
	if _, err := Model(Config{Dir: dir, Now: today, Asker: swap{filepath.Join(dir, "labels.txt")}}); code(err) != modelsig.CodeDigest {
		t.Error(err)
	}
}

func TestSignTwice(t *testing.T) {
	s, _ := newSigner(t)
	p, err := pack(t, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Sign(s); err != nil {
		t.Fatal(err)
	}
	if err := p.Sign(s); code(err) != "pack.signature" {
		t.Error(err)
	}
}
