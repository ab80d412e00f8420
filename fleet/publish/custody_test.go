package publish

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/dunlin-edge/dunlin/fleet/kms"
	"github.com/dunlin-edge/dunlin/fleet/offline"
)

// plugin puts the plug-in of testbed/plugin on PATH.
func plugin(t *testing.T) {
	t.Helper()
	dir := t.TempDir()
	if out, err := exec.Command("go", "build", "-o", filepath.Join(dir, kms.Prefix+"test"), "../../testbed/plugin").CombinedOutput(); err != nil {
		t.Fatalf("build the plug-in: %v\n%s", err, out)
	}
	t.Setenv("PATH", dir+string(os.PathListSeparator)+os.Getenv("PATH"))
}

// joined is a ceremony of three holders: alice has her keys in files, bob and
// carol in plug-ins, of both types that devices know.
func joined(t *testing.T, s *server) string {
	t.Helper()
	dir := t.TempDir()
	for _, c := range []JoinConfig{
		{Holder: "alice"},
		{Holder: "bob", RootKey: "test://ed25519/bob-root", ReleaseKey: "test://p256/bob-release"},
		{Holder: "carol", RootKey: "test://p256/carol-root", ReleaseKey: "test://ed25519/carol-release"},
	} {
		c.Dir, c.Holders, c.Online, c.Passphrase = dir, 3, func() (*Online, error) { return onlineOf(s), nil }, pass(c.Holder)
		if _, err := Join(c, day0); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// TestPlugins holds a ceremony and publishes with keys that no file has: a root, a
// channel's and a build server's.
func TestPlugins(t *testing.T) {
	plugin(t)
	s := newServer(t)
	dir := joined(t, s)
	where, err := AddMachine(MachineConfig{Dir: dir, Name: "ci", Channel: "dev", Key: "test://p256/ci"})
	if err != nil || where != "test://p256/ci" {
		t.Fatalf("%q, %v", where, err)
	}
	files, err := filepath.Glob(filepath.Join(dir, KeysDir, "*"))
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]string{keyPath(dir, "alice", KindRelease), keyPath(dir, "alice", KindRoot)}, files); d != "" {
		t.Error(d)
	}
	for _, h := range []string{"bob", "carol"} {
		if _, err := Sign(dir, h, nil); err != nil {
			t.Fatal(err)
		}
	}
	p := &publisher{s, dir, s.client(t), map[string]*offline.Key{}}
	if err := p.client.Install(context.Background(), dir, day0); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(dir, TranscriptFile))
	if err != nil || !strings.Contains(string(text), "machine ci  dev only") {
		t.Errorf("the transcript does not name the machine (%v):\n%s", err, text)
	}
	keys := func(refs ...string) (out []*offline.Key) {
		for _, r := range refs {
			k, err := offline.LoadKey(r, nil)
			if err != nil {
				t.Fatal(err)
			}
			out = append(out, k)
		}
		return out
	}
	bundle := packed(t, "1.0.0", labels)
	for channel, x := range map[string]struct {
		refs    []string
		signers []string
		code    string
	}{
		"production": {[]string{"test://p256/bob-release", "test://ed25519/carol-release"}, []string{"bob", "carol"}, ""},
		"dev":        {[]string{"test://p256/ci"}, []string{"ci"}, ""},
		"staging":    {[]string{"test://p256/ci"}, nil, "publish.key"},
	} {
		c := p.conf(t, bundle, channel)
		c.Keys = keys(x.refs...)
		got, err := p.publish(c)
		wantCode(t, err, x.code)
		if err == nil {
			if d := cmp.Diff(x.signers, got.Signers); d != "" {
				t.Error(channel, d)
			}
		}
	}
	c := p.conf(t, packed(t, "1.1.0", labels), "production")
	c.Keys = keys("test://other-key/p256/bob-release", "test://ed25519/carol-release")
	_, err = p.publish(c)
	wantCode(t, err, kms.CodeSignature)
	c.Keys = keys("test://p256/bob-release", "test://p256/ci")
	_, err = p.publish(c)
	wantCode(t, err, "publish.key")
}

// TestPluginCeremony wants a ceremony to take no key that is not the one with which
// its holder joined, and none that devices do not know.
func TestPluginCeremony(t *testing.T) {
	plugin(t)
	s := newServer(t)
	dir := joined(t, s)
	file := filepath.Join(dir, CeremonyFile)
	good, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	cer, err := LoadCeremony(dir)
	if err != nil {
		t.Fatal(err)
	}
	for ref, want := range map[string]string{
		"test://ed25519/somebody":         "key.mismatch",
		"gone://ed25519/bob-root":         kms.CodeAbsent,
		"test://refuses/ed25519/bob-root": kms.CodeRefused,
	} {
		cer.Joined[1].RootRef = ref
		if err := cer.Save(dir); err != nil {
			t.Fatal(err)
		}
		_, err := Sign(dir, "bob", nil)
		wantCode(t, err, want)
	}
	if err := os.WriteFile(file, good, 0o644); err != nil {
		t.Fatal(err)
	}
	_, list, err := Status(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range list {
		if len(f.By) != 0 {
			t.Errorf("%s is signed by %v", f.File, f.By)
		}
	}
	for ref, want := range map[string]string{"test://rsa/dave": kms.CodeKey, "test://p384/dave": kms.CodeKey, "test://hello": kms.CodeRefused} {
		_, err := Join(JoinConfig{Dir: t.TempDir(), Holder: "dave", RootKey: ref, Online: func() (*Online, error) { return onlineOf(s), nil }, Passphrase: pass("dave")}, day0)
		wantCode(t, err, want)
	}
}

// TestMachine wants machines to sign for no channel that people decide about, and
// to come before anything is signed.
func TestMachine(t *testing.T) {
	s := newServer(t)
	dir := ceremony(t, onlineOf(s), "eve")
	add := func(name, channel, code string) {
		t.Helper()
		_, err := AddMachine(MachineConfig{Dir: dir, Name: name, Channel: channel, Passphrase: pass("a machine's")})
		wantCode(t, err, code)
	}
	add("ci", "production", "machine.channel")
	add("ci", "nightly", "machine.channel")
	add("CI", "dev", "machine.malformed")
	add("eve", "dev", "holder.exists")
	add("ci", "dev", "")
	add("ci", "staging", "holder.exists")
	signAll(t, dir, "eve")
	add("late", "dev", "ceremony.signed")
	if err := s.client(t).Install(context.Background(), dir, day0); err != nil {
		t.Fatal(err)
	}
	_, err := AddMachine(MachineConfig{Dir: t.TempDir(), Name: "ci", Channel: "dev"})
	wantCode(t, err, "ceremony.unknown")
}
