package backup

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/secure-systems-lab/go-securesystemslib/encrypted"

	"github.com/dunlin-edge/dunlin/fleet"
)

var (
	passphrase = []byte("a long passphrase")
	content    = map[string]string{"fleet.yaml": "name: fleet.example\n", "ca.pem": "", "fleet.db": strings.Repeat("page", 1000)}
	secrets    = Secrets{"ca-key.pem": []byte("secret one"), "online-keys.json": []byte("secret two")}
)

func made(t testing.TB) []byte {
	t.Helper()
	var sources []Source
	for _, name := range []string{"fleet.yaml", "ca.pem", "fleet.db"} {
		sources = append(sources, Source{name, strings.NewReader(content[name])})
	}
	m := Manifest{Made: time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC), Server: "fleet.example", Version: "1.2.3", Schema: 3, Blobs: []Blob{{"sha256:" + strings.Repeat("a", 64), 7}}}
	var b bytes.Buffer
	if err := Write(&b, m, sources, secrets, passphrase); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func opened(b []byte, pass []byte) (*Archive, error) {
	return Open(bytes.NewReader(b), int64(len(b)), pass)
}

func TestRoundTrip(t *testing.T) {
	b := made(t)
	for _, s := range secrets {
		if bytes.Contains(b, s) {
			t.Errorf("%q is in the backup in clear", s)
		}
	}
	a, err := opened(b, passphrase)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(secrets, a.Secrets); d != "" {
		t.Error(d)
	}
	got := map[string]string{}
	for _, f := range a.Files {
		text, err := io.ReadAll(a.File(f.Name))
		if err != nil {
			t.Fatal(err)
		}
		got[f.Name] = string(text)
	}
	if d := cmp.Diff(content, got); d != "" {
		t.Error(d)
	}
	if a.Server != "fleet.example" || a.Schema != 3 || len(a.Blobs) != 1 || a.File("other") != nil {
		t.Errorf("%+v", a.Manifest)
	}
}

// forged makes a backup whose sums all fit each other, sealed with another manifest.
func forged(t *testing.T, change func(m *Manifest, files *string)) []byte {
	t.Helper()
	b := made(t)
	head, parts, err := readHead(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		t.Fatal(err)
	}
	var m Manifest
	if err := json.Unmarshal(b[head:head+parts[0].length], &m); err != nil {
		t.Fatal(err)
	}
	box := b[head+parts[0].length : head+parts[0].length+parts[1].length]
	files := string(b[head+parts[0].length+parts[1].length:])
	change(&m, &files)
	manifest, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return []byte(fmt.Sprintf("%s1\n%d %s\n%d %s\n%s%s%s", magic, len(manifest), sum(manifest), len(box), sum(box), manifest, box, files))
}

func TestRefused(t *testing.T) {
	whole := made(t)
	for _, c := range []struct {
		about string
		b     []byte
		pass  string
		want  error
	}{
		{"empty", nil, "", fleet.ErrBackupForeign},
		{"a database", []byte("SQLite format 3\x00"), "", fleet.ErrBackupForeign},
		{"an archive", bytes.Repeat([]byte{0x1f, 0x8b}, 1000), "", fleet.ErrBackupForeign},
		{"a newer format", bytes.Replace(whole, []byte(magic+"1\n"), []byte(magic+"2\n"), 1), "", fleet.ErrBackupFormat},
		{"no number", bytes.Replace(whole, []byte(magic+"1\n"), []byte(magic+"x\n"), 1), "", fleet.ErrBackupDamaged},
		{"only its first line", whole[:len(magic)+2], "", fleet.ErrBackupDamaged},
		{"one byte more", append(bytes.Clone(whole), 0), "", fleet.ErrBackupDamaged},
		{"a huge manifest", []byte(magic + "1\n999999999 " + strings.Repeat("0", 64) + "\n1 " + strings.Repeat("0", 64) + "\n"), "", fleet.ErrBackupDamaged},
		{"another passphrase", whole, "not this passphrase", fleet.ErrBackupPassphrase},
		{"a file replaced, with its sum", forged(t, func(m *Manifest, files *string) {
			*files = strings.Replace(*files, "page", "PAGE", 1)
			m.Files[2].SHA256 = sum([]byte((*files)[len(*files)-4000:]))
		}), "", fleet.ErrBackupDamaged},
		{"a blob replaced", forged(t, func(m *Manifest, _ *string) { m.Blobs[0].Size = 8 }), "", fleet.ErrBackupDamaged},
		{"a name that leads away", forged(t, func(m *Manifest, _ *string) { m.Files[0].Name = "../x" }), "", fleet.ErrBackupDamaged},
		{"a name twice", forged(t, func(m *Manifest, _ *string) { m.Files[1].Name = m.Files[0].Name }), "", fleet.ErrBackupDamaged},
		{"a file before its begin", forged(t, func(m *Manifest, _ *string) { m.Files[0].Size = -1 }), "", fleet.ErrBackupDamaged},
		{"a file past the end", forged(t, func(m *Manifest, _ *string) { m.Files[0].Size = 1 << 62 }), "", fleet.ErrBackupDamaged},
	} {
		pass := passphrase
		if c.pass != "" {
			pass = []byte(c.pass)
		}
		if a, err := opened(c.b, pass); !errors.Is(err, c.want) || a != nil {
			t.Errorf("%s: %v, want %v", c.about, err, c.want)
		}
	}
}

// TestEveryByteCounts cuts a backup at every length and flips every byte: none of
// that is taken for whole. What the passphrase must judge is sampled: it is slow.
func TestEveryByteCounts(t *testing.T) {
	whole := made(t)
	for n := range whole {
		if _, err := opened(whole[:n], passphrase); err == nil {
			t.Fatalf("cut at %d: taken", n)
		}
	}
	for n := range whole {
		b := bytes.Clone(whole)
		b[n] ^= 0x20
		if _, err := opened(b, passphrase); err == nil {
			t.Fatalf("byte %d flipped: taken", n)
		}
	}
}

// TestSealed opens the secrets by the passphrase and by nothing else, in the box
// that the files of offline keys have.
func TestSealed(t *testing.T) {
	b := made(t)
	head, parts, err := readHead(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		t.Fatal(err)
	}
	box := b[head+parts[0].length : head+parts[0].length+parts[1].length]
	if _, err := encrypted.Decrypt(box, nil); err == nil {
		t.Error("opened without a passphrase")
	}
	plain, err := encrypted.Decrypt(box, passphrase)
	if err != nil || !bytes.Contains(plain, []byte("ca-key.pem")) {
		t.Errorf("%q, %v", plain, err)
	}
}

func FuzzOpen(f *testing.F) {
	whole := made(f)
	f.Add(whole)
	f.Add(whole[:len(whole)/2])
	f.Add([]byte(magic + "1\n"))
	f.Add([]byte(magic + "1\n2 " + sum([]byte("{}")) + "\n2 " + sum([]byte("{}")) + "\n{}{}"))
	f.Add([]byte(magic + "1\n4 " + sum([]byte("null")) + "\n4 " + sum([]byte("null")) + "\nnullnull"))
	f.Fuzz(func(t *testing.T, b []byte) {
		a, err := opened(b, passphrase)
		if err != nil {
			return
		}
		for _, x := range a.Files {
			if n, err := io.Copy(io.Discard, a.File(x.Name)); err != nil || n != x.Size {
				t.Errorf("%s: %d of %d bytes, %v", x.Name, n, x.Size, err)
			}
		}
	})
}
