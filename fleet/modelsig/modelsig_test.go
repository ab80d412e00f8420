package modelsig

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/dunlin-edge/dunlin/fleet"
)

var now = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

func passphrase(bool) ([]byte, error) { return []byte("correct horse"), nil }

// newSigner makes a key and the policy that wants it.
func newSigner(t testing.TB) (*Signer, *Policy) {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return local(k), &Policy{Key: &k.PublicKey}
}

var content = map[string]string{"model.tflite": "weights", "labels.txt": "a\nb\n", "docs/card.md": "# Card\n"}

func filesOf(content map[string]string) []File {
	var list []File
	for name, text := range content {
		list = append(list, File{name, sha256.Sum256([]byte(text))})
	}
	return list
}

// folder writes a model and its signature.
func folder(t testing.TB, content map[string]string, signature []byte) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range content {
		write(t, filepath.Join(dir, name), []byte(text))
	}
	if signature != nil {
		write(t, filepath.Join(dir, Name), signature)
	}
	return dir
}

func write(t testing.TB, path string, b []byte) {
	t.Helper()
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, b, 0o644)); err != nil {
		t.Fatal(err)
	}
}

func sign(t testing.TB, s *Signer, content map[string]string) []byte {
	t.Helper()
	raw, err := s.Sign("gate", filesOf(content))
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// payloadOf is the statement inside a signature.
func payloadOf(t testing.TB, raw []byte) string {
	t.Helper()
	e, err := parseEnvelope(raw)
	if err != nil {
		t.Fatal(err)
	}
	return string(e.DSSE.Payload)
}

// signPayload signs any text as if it were a statement: what a signer with a
// faulty or evil tool could make.
func (s *Signer) signPayload(t testing.TB, payload, kind string) []byte {
	t.Helper()
	id, err := hint(s.public)
	if err != nil {
		t.Fatal(err)
	}
	e := envelope{MediaType: bundleV03, DSSE: &dsse{Payload: []byte(payload), PayloadType: kind}}
	e.Material.PublicKey = &publicKey{Hint: id}
	sig, err := s.sign(e.DSSE.signed())
	if err != nil {
		t.Fatal(err)
	}
	e.DSSE.Signatures = []signature{{Sig: sig}}
	raw, err := json.Marshal(e)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// code is the code of a refusal; "" for nil.
func code(err error) string {
	var e *fleet.Error
	switch {
	case err == nil:
		return ""
	case errors.As(err, &e):
		return e.Code
	}
	return err.Error()
}

func TestKeyVerifies(t *testing.T) {
	s, p := newSigner(t)
	st, err := VerifyFolder(folder(t, content, sign(t, s, content)), "", p, now)
	if err != nil {
		t.Fatal(err)
	}
	if st.Method != MethodKey || !strings.HasPrefix(st.Signer, "key ") || st.Len() != len(content) {
		t.Errorf("statement %+v", st)
	}
}

func TestEqualInputGivesEqualSignature(t *testing.T) {
	s, _ := newSigner(t)
	if a, b := sign(t, s, content), sign(t, s, content); !bytes.Equal(a, b) {
		t.Errorf("two signatures of the same differ:\n%s\n%s", a, b)
	}
}

// attack is something done to a signed folder, and what is said to it.
type attack struct {
	name    string
	content func(c map[string]string)          // changes the files
	raw     func(s *Signer, raw []byte) []byte // changes the signature
	want    string
}

// payload changes the statement and signs it again with the right key, kind "" being
// the right one.
func payload(t *testing.T, kind string, change func(string) string) func(*Signer, []byte) []byte {
	return func(s *Signer, raw []byte) []byte {
		before := payloadOf(t, raw)
		after := change(before)
		if before == after && kind == "" {
			t.Fatal("the attack changes nothing")
		}
		if kind == "" {
			kind = payloadType
		}
		return s.signPayload(t, after, kind)
	}
}

// text replaces text of the signature file.
func text(t *testing.T, from, to string) func(*Signer, []byte) []byte {
	return func(_ *Signer, raw []byte) []byte {
		if !bytes.Contains(raw, []byte(from)) {
			t.Fatalf("%q is not in %s", from, raw)
		}
		return bytes.Replace(raw, []byte(from), []byte(to), 1)
	}
}

func replace(from, to string) func(string) string {
	return func(s string) string { return strings.Replace(s, from, to, 1) }
}

func TestAttacks(t *testing.T) {
	labels := hex.EncodeToString(filesOf(map[string]string{"": content["labels.txt"]})[0].Digest[:])
	for _, a := range []attack{
		{name: "file added", content: func(c map[string]string) { c["run.py"] = "evil" }, want: CodeFile},
		{name: "file removed", content: func(c map[string]string) { delete(c, "labels.txt") }, want: CodeFile},
		{name: "file altered", content: func(c map[string]string) { c["model.tflite"] = "weightz" }, want: CodeDigest},
		{name: "file emptied", content: func(c map[string]string) { c["model.tflite"] = "" }, want: CodeDigest},
		{name: "file renamed", content: func(c map[string]string) { c["labels.TXT"] = c["labels.txt"]; delete(c, "labels.txt") }, want: CodeFile},
		{name: "files swapped", content: func(c map[string]string) {
			c["labels.txt"], c["model.tflite"] = c["model.tflite"], c["labels.txt"]
		}, want: CodeDigest},
		{name: "file moved", content: func(c map[string]string) { c["card.md"] = c["docs/card.md"]; delete(c, "docs/card.md") }, want: CodeFile},
		{name: "other key", raw: func(_ *Signer, _ []byte) []byte { s, _ := newSigner(t); return sign(t, s, content) }, want: CodeIdentity},
		{name: "other key without its name", raw: func(_ *Signer, raw []byte) []byte {
			s, _ := newSigner(t)
			return bytes.Replace(sign(t, s, content), []byte(`"hint"`), []byte(`"none"`), 1)
		}, want: CodeSignature},
		{name: "other key under the right name", raw: func(s *Signer, raw []byte) []byte {
			o, _ := newSigner(t)
			id, _ := hint(s.public)
			other, _ := hint(o.public)
			return bytes.Replace(sign(t, o, content), []byte(other), []byte(id), 1)
		}, want: CodeSignature},
		{name: "signature of another model by the same signer", raw: func(s *Signer, _ []byte) []byte {
			return sign(t, s, map[string]string{"model.tflite": "older", "labels.txt": "a\nb\n", "docs/card.md": "# Card\n"})
		}, want: CodeDigest},
		{name: "other payload type", raw: payload(t, "application/json", func(s string) string { return s }), want: CodeMalformed},
		{name: "other payload type, not signed", raw: text(t, "vnd.in-toto+json", "vnd.in-toto+yaml"), want: CodeMalformed},
		{name: "payload altered", raw: text(t, `"payload":"`, `"payload":"ICAg`), want: CodeSignature},
		{name: "signature stripped", raw: func(_ *Signer, raw []byte) []byte {
			i, j := bytes.Index(raw, []byte(`"signatures":[`)), bytes.LastIndexByte(raw, ']')
			return append(append(bytes.Clone(raw[:i+len(`"signatures":[`)]), raw[j:]...), ' ')
		}, want: CodeMalformed},
		{name: "signature empty", raw: func(_ *Signer, raw []byte) []byte {
			i := bytes.Index(raw, []byte(`"sig":"`)) + len(`"sig":"`)
			return append(bytes.Clone(raw[:i]), raw[i+bytes.IndexByte(raw[i:], '"'):]...)
		}, want: CodeSignature},
		{name: "second signature", raw: text(t, `"signatures":[`, `"signatures":[{"sig":"AAAA"},`), want: CodeMalformed},
		{name: "method changed", raw: text(t, `"publicKey":{`, `"x509CertificateChain":{"certificates":[],`), want: CodeIdentity},
		{name: "two methods", raw: text(t, `"publicKey":{`, `"x509CertificateChain":{"certificates":[]},"publicKey":{`), want: CodeMalformed},
		{name: "no method", raw: text(t, `"publicKey":{`, `"other":{`), want: CodeMalformed},
		{name: "media type", raw: text(t, bundleV03, "application/json"), want: CodeMalformed},
		{name: "duplicate key around the statement", raw: text(t, `"payloadType"`, `"payload":"e30=","payloadType"`), want: CodeMalformed},
		{name: "duplicate key but for case", raw: text(t, `"payloadType"`, `"Payload":"e30=","payloadType"`), want: CodeMalformed},
		{name: "duplicate key but for a long s", raw: text(t, `"payloadType"`, `"\u017fignatures":[],"payloadType"`), want: CodeMalformed},
		{name: "duplicate key in the statement", raw: payload(t, "", replace(`"predicate":`, `"predicate":{},"predicate":`)), want: CodeMalformed},
		{name: "duplicate key in a resource", raw: payload(t, "", replace(`"algorithm"`, `"name":"run.py","algorithm"`)), want: CodeMalformed},
		{name: "something behind", raw: func(_ *Signer, raw []byte) []byte { return append(raw, "{}"...) }, want: CodeMalformed},
		{name: "deep nesting", raw: func(*Signer, []byte) []byte { return []byte(strings.Repeat("[", 1<<20)) }, want: CodeMalformed},
		{name: "deep nesting in the statement", raw: payload(t, "", replace(`"predicate":`, `"x":`+strings.Repeat("[", 99)+strings.Repeat("]", 99)+`,"predicate":`)), want: CodeMalformed},
		{name: "huge statement", raw: payload(t, "", func(s string) string { return s + strings.Repeat(" ", MaxSize) }), want: CodeMalformed},
		{name: "truncated", raw: func(_ *Signer, raw []byte) []byte { return raw[:len(raw)/2] }, want: CodeMalformed},
		{name: "empty", raw: func(*Signer, []byte) []byte { return []byte{} }, want: CodeMalformed},
		{name: "null", raw: func(*Signer, []byte) []byte { return []byte("null") }, want: CodeMalformed},
		{name: "statement null", raw: payload(t, "", func(string) string { return "null" }), want: CodeMalformed},
		{name: "statement of another kind", raw: payload(t, "", replace("Statement/v1", "Statement/v2")), want: CodeMalformed},
		{name: "older predicate", raw: payload(t, "", replace("signature/v1.0", "Digests/v0.1")), want: CodeUnsupported},
		{name: "shards", raw: payload(t, "", replace(`"files"`, `"shards"`)), want: CodeUnsupported},
		{name: "weaker hash", raw: payload(t, "", replace(`"hash_type":"sha256"`, `"hash_type":"md5"`)), want: CodeUnsupported},
		{name: "weaker hash of a file", raw: payload(t, "", replace(`"algorithm":"sha256"`, `"algorithm":"md5"`)), want: CodeUnsupported},
		{name: "short digest", raw: payload(t, "", replace(labels, labels[:62])), want: CodeMalformed},
		{name: "digest not the subject's", raw: payload(t, "", replace(labels, strings.Repeat("0", 64))), want: CodeMalformed},
		{name: "no files", raw: payload(t, "", func(s string) string {
			return s[:strings.Index(s, `"resources":[`)] + `"resources":[]` + s[strings.Index(s, `,"serialization"`):]
		}), want: CodeMalformed},
		{name: "no subject", raw: payload(t, "", func(s string) string {
			return s[:strings.Index(s, `"subject":[`)] + `"subject":[]` + s[strings.Index(s, `,"predicateType"`):]
		}), want: CodeMalformed},
		{name: "path leaves the folder", raw: payload(t, "", replace("labels.txt", "../labels.txt")), want: CodeMalformed},
		{name: "absolute path", raw: payload(t, "", replace("labels.txt", "/labels.txt")), want: CodeMalformed},
		{name: "the folder as a file", raw: payload(t, "", replace("labels.txt", ".")), want: CodeMalformed},
		{name: "a file twice", raw: payload(t, "", replace("docs/card.md", "labels.txt")), want: CodeMalformed},
	} {
		t.Run(a.name, func(t *testing.T) {
			s, p := newSigner(t)
			c, raw := maps.Clone(content), sign(t, s, content)
			if a.content != nil {
				a.content(c)
			}
			if a.raw != nil {
				raw = a.raw(s, raw)
			}
			if _, err := VerifyFolder(folder(t, c, raw), "", p, now); code(err) != a.want {
				t.Errorf("%v, wanted %s", err, a.want)
			}
		})
	}
}

func TestFolders(t *testing.T) {
	s, p := newSigner(t)
	raw := sign(t, s, content)
	verify := func(dir string, unsigned ...string) error {
		_, err := VerifyFolder(dir, "", p, now, unsigned...)
		return err
	}
	t.Run("no signature", func(t *testing.T) {
		if err := verify(folder(t, content, nil)); code(err) != CodeMissing {
			t.Error(err)
		}
	})
	t.Run("link", func(t *testing.T) {
		dir := folder(t, content, raw)
		target := filepath.Join(t.TempDir(), "labels.txt")
		write(t, target, []byte(content["labels.txt"]))
		if err := errors.Join(os.Remove(filepath.Join(dir, "labels.txt")), os.Symlink(target, filepath.Join(dir, "labels.txt"))); err != nil {
			t.Fatal(err)
		}
		if err := verify(dir); code(err) != CodeFile {
			t.Error(err)
		}
	})
	t.Run("git", func(t *testing.T) {
		dir := folder(t, content, raw)
		write(t, filepath.Join(dir, ".git", "config"), []byte("x"))
		if err := verify(dir); err != nil {
			t.Error(err)
		}
		write(t, filepath.Join(dir, "docs", ".git", "config"), []byte("x"))
		if err := verify(dir); code(err) != CodeFile {
			t.Errorf("below another folder .git is a file like any: %v", err)
		}
	})
	t.Run("git, not named by the signer", func(t *testing.T) {
		i := strings.Index(payloadOf(t, raw), `,"ignore_paths":`)
		older := payload(t, "", func(s string) string { return s[:i] + s[i+strings.IndexByte(s[i:], ']')+1:] })(s, raw)
		dir := folder(t, content, older)
		write(t, filepath.Join(dir, ".git", "config"), []byte("x"))
		if err := verify(dir); err != nil {
			t.Error(err)
		}
	})
	t.Run("unsigned", func(t *testing.T) {
		dir := folder(t, content, raw)
		write(t, filepath.Join(dir, "model.yaml"), []byte("x"))
		if err := verify(dir, "model.yaml"); err != nil {
			t.Error(err)
		}
		write(t, filepath.Join(dir, "labels.txt"), []byte("x"))
		if err := verify(dir, "model.yaml", "labels.txt"); code(err) != CodeDigest {
			t.Errorf("what the signer knows must be what was signed: %v", err)
		}
	})
	t.Run("signature elsewhere", func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "gate.sig")
		write(t, file, raw)
		if _, err := VerifyFolder(folder(t, content, nil), file, p, now); err != nil {
			t.Error(err)
		}
	})
	t.Run("one file", func(t *testing.T) {
		for _, name := range []string{"model.tflite", single} {
			dir := folder(t, content, sign(t, s, map[string]string{name: content["model.tflite"]}))
			if _, err := VerifyFile(filepath.Join(dir, "model.tflite"), "", p, now); err != nil {
				t.Errorf("named %q: %v", name, err)
			}
			if _, err := VerifyFile(filepath.Join(dir, "labels.txt"), "", p, now); err == nil {
				t.Errorf("named %q: another file passed", name)
			}
		}
	})
}

// TestLeftOut: a signer may leave paths out, as .git always is. A folder passes
// then as with the reference tool, but nobody vouches for those files.
func TestLeftOut(t *testing.T) {
	s, p := newSigner(t)
	c := maps.Clone(content)
	delete(c, "labels.txt")
	raw := payload(t, "", replace(`"model.sig"`, `"model.sig","labels.txt"`))(s, sign(t, s, c))
	st, err := VerifyFolder(folder(t, content, raw), "", p, now)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range filesOf(content) {
		want := ""
		if f.Name == "labels.txt" {
			want = CodeFile
		}
		if err := st.Covers(f); code(err) != want {
			t.Errorf("%s: %v, wanted %q", f.Name, err, want)
		}
	}
}

func TestSignerKeys(t *testing.T) {
	private, _, err := NewKey(passphrase)
	if err != nil {
		t.Fatal(err)
	}
	wrong := func(bool) ([]byte, error) { return []byte("wrong"), nil }
	nobody := func(bool) ([]byte, error) { return nil, errors.New("nobody is there") }
	for name, c := range map[string]struct {
		pem  []byte
		pass func(bool) ([]byte, error)
		want string
	}{
		"right":            {private, passphrase, ""},
		"wrong passphrase": {private, wrong, CodeKey},
		"nobody":           {private, nobody, "nobody is there"},
		"no key":           {[]byte("x"), passphrase, CodeKey},
	} {
		if _, err := NewSigner(c.pem, c.pass); code(err) != c.want {
			t.Errorf("%s: %v, wanted %q", name, err, c.want)
		}
	}
	if bytes.Contains(private, []byte("BEGIN EC PRIVATE KEY")) || !bytes.Contains(private, []byte("ENCRYPTED")) {
		t.Errorf("the key is not encrypted: %s", private)
	}
}

func TestRequirements(t *testing.T) {
	for text, want := range map[string]Requirement{
		"":            {},
		"key=pub.pem": {Key: "pub.pem"},
		"cert=ca.pem": {Cert: "ca.pem"},
		"identity=https://github.com/a/b,issuer=https://i,root=r.json": {Identity: "https://github.com/a/b", Issuer: "https://i", Root: "r.json"},
	} {
		if got, err := ParseRequirement(text); err != nil || !cmp.Equal(got, want) {
			t.Errorf("%q: %+v, %v", text, got, err)
		}
	}
	for _, text := range []string{"pub.pem", "key=", "key=a,key=b", "key=a,cert=b", "identity=a", "identity=a,issuer=b", "identity=a,root=c", "issuer=b,root=c", "key=a,issuer=b", "colour=red", ","} {
		if got, err := ParseRequirement(text); code(err) != CodePolicy {
			t.Errorf("%q: %+v, %v", text, got, err)
		}
	}
	dir := t.TempDir()
	write(t, filepath.Join(dir, "none.pem"), []byte("none"))
	write(t, filepath.Join(dir, "large.pem"), bytes.Repeat([]byte("x"), maxTrust+1))
	for _, text := range []string{"key=absent", "key=none.pem", "cert=none.pem", "key=large.pem", "identity=a,issuer=b,root=none.pem"} {
		r, err := ParseRequirement(text)
		if err != nil {
			t.Fatal(err)
		}
		if p, err := r.Load(dir); code(err) != CodePolicy {
			t.Errorf("%q: %+v, %v", text, p, err)
		}
	}
}

// FuzzVerify mutates signatures: whatever passes says what was signed.
func FuzzVerify(f *testing.F) {
	s, p := newSigner(f)
	raw := sign(f, s, content)
	want, err := Verify(raw, p, now)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(raw)
	f.Add(bytes.Replace(raw, []byte(`"keyid":""`), []byte(`"keyid":null`), 1))
	f.Add([]byte(fmt.Sprintf(`{"mediaType":%q,"verificationMaterial":{"certificate":{"rawBytes":""}},"dsseEnvelope":{}}`, bundleV03)))
	f.Fuzz(func(t *testing.T, raw []byte) {
		got, err := Verify(raw, p, now)
		if err != nil {
			if code(err) == err.Error() {
				t.Errorf("a refusal without a code: %v", err)
			}
			return
		}
		if !cmp.Equal(got.files, want.files) {
			t.Errorf("passed: %v", got.files)
		}
	})
}

// FuzzStatement reads statements that nobody signed.
func FuzzStatement(f *testing.F) {
	s, _ := newSigner(f)
	f.Add([]byte(payloadOf(f, sign(f, s, content))))
	f.Fuzz(func(t *testing.T, payload []byte) {
		st, err := parseStatement(payload)
		if err == nil && st.Len() == 0 {
			t.Error("a statement about nothing")
		}
		if err != nil && code(err) == err.Error() {
			t.Errorf("a refusal without a code: %v", err)
		}
	})
}
