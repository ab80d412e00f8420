package publish

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/theupdateframework/go-tuf/v2/metadata"

	"github.com/dunlin-edge/dunlin/fleet"
	"github.com/dunlin-edge/dunlin/fleet/offline"
)

// soon is when proposals are read.
var soon = day0.Add(2 * time.Hour)

func (p *publisher) trust(t *testing.T) *Trust {
	t.Helper()
	return p.conf(t, "", "production").Trust
}

func (p *publisher) keys(t *testing.T, holders ...string) []*offline.Key {
	t.Helper()
	return p.conf(t, "", "production", holders...).Keys
}

// proposed is a proposal of one holder for production, as a file.
func (p *publisher) proposed(t *testing.T, version, holder string) string {
	t.Helper()
	got, prop, err := p.client.Propose(context.Background(), p.conf(t, packed(t, version, labels), "production", holder), day0.Add(time.Hour))
	if err != nil || got.Signing.Missing != 1 {
		t.Fatalf("%+v, %v", got, err)
	}
	file := filepath.Join(t.TempDir(), "proposal.json")
	if err := prop.Write(file); err != nil {
		t.Fatal(err)
	}
	return file
}

// TestProposal lets a proposal travel from one holder to the next until the
// threshold is met: nothing is published before, and each sees what it changes.
func TestProposal(t *testing.T) {
	p := newPublisher(t)
	ctx := context.Background()
	file := p.proposed(t, "1.0.0", "alice")
	prop, err := ReadProposal(file, p.trust(t), soon)
	if err != nil {
		t.Fatal(err)
	}
	wantCode(t, p.client.Complete(ctx, prop), "publish.threshold")
	if rs, err := p.db.Releases(ctx, fleet.ReleaseFilter{}); err != nil || len(rs) != 0 {
		t.Fatalf("published below the threshold: %v, %v", rs, err)
	}
	changes, err := prop.Changes(soon)
	if err != nil {
		t.Fatal(err)
	}
	want := []Change{{Path: "production/gate/1.0.0", Digest: changes[0].Digest, Counter: 1, Model: "gate"}}
	if d := cmp.Diff(want, changes); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff(&Signing{2, []string{"alice"}, []string{"bob", "carol"}, 1}, prop.Signing()); d != "" {
		t.Error(d)
	}
	stranger := &offline.Key{ID: "0123"}
	wantCode(t, prop.Sign([]*offline.Key{p.keys(t, "carol")[0], stranger}), "publish.key")
	if prop.Signing().Missing != 1 {
		t.Error("a stranger's company signed")
	}
	for range 2 { // signing twice changes nothing
		if err := prop.Sign(p.keys(t, "carol")); err != nil {
			t.Fatal(err)
		}
	}
	if err := prop.Write(file); err != nil {
		t.Fatal(err)
	}
	if prop, err = ReadProposal(file, p.trust(t), soon); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(&Signing{2, []string{"alice", "carol"}, []string{"bob"}, 0}, prop.Signing()); d != "" {
		t.Error(d)
	}
	if err := p.client.Complete(ctx, prop); err != nil {
		t.Fatal(err)
	}
	wantCode(t, p.client.Complete(ctx, prop), "catalog.stale")
	if rs, err := p.db.Releases(ctx, fleet.ReleaseFilter{}); err != nil || len(rs) != 1 {
		t.Errorf("%v, %v", rs, err)
	}
	late := p.proposed(t, "1.1.0", "alice")
	if _, err := p.publish(p.conf(t, packed(t, "1.2.0", labels), "production", "alice", "bob")); err != nil {
		t.Fatal(err)
	}
	if prop, err = ReadProposal(late, p.trust(t), soon); err != nil {
		t.Fatal(err)
	}
	if err := prop.Sign(p.keys(t, "bob")); err != nil {
		t.Fatal(err)
	}
	wantCode(t, p.client.Complete(ctx, prop), "catalog.stale")
}

// TestBadProposals wants a holder to be told when a proposal would do something
// that is not in its list of changes, whoever has signed it.
func TestBadProposals(t *testing.T) {
	p := newPublisher(t)
	c := p.conf(t, packed(t, "1.0.0", labels), "production", "alice", "bob")
	if _, err := p.publish(c); err != nil {
		t.Fatal(err)
	}
	c.Floor = 1
	if _, err := p.publish(c); err != nil {
		t.Fatal(err)
	}
	file := p.proposed(t, "1.1.0", "alice")
	const old, fresh = "production/gate/1.0.0", "production/gate/1.1.0"
	for name, x := range map[string]struct {
		change func(r *metadata.TargetsType)
		code   string
	}{
		"as it was":         {func(*metadata.TargetsType) {}, ""},
		"nothing is new":    {func(r *metadata.TargetsType) { delete(r.Targets, fresh) }, ""},
		"a release goes":    {func(r *metadata.TargetsType) { delete(r.Targets, old) }, "proposal.suspect"},
		"a release changes": {func(r *metadata.TargetsType) { r.Targets[old] = r.Targets[fresh] }, "proposal.suspect"},
		"an older counter": {func(r *metadata.TargetsType) {
			raw := json.RawMessage(strings.Replace(string(*r.Targets[fresh].Custom), `"counter":2`, `"counter":1`, 1))
			r.Targets[fresh].Custom = &raw
		}, "proposal.suspect"},
		"another name": {func(r *metadata.TargetsType) {
			r.Targets["production/gate/9.9.9"] = r.Targets[fresh]
			delete(r.Targets, fresh)
		}, "proposal.suspect"},
		"no custom":          {func(r *metadata.TargetsType) { r.Targets[fresh].Custom = nil }, "catalog.untrusted"},
		"two hashes":         {func(r *metadata.TargetsType) { r.Targets[fresh].Hashes["sha512"] = r.Targets[fresh].Hashes["sha256"] }, "proposal.suspect"},
		"a version is left":  {func(r *metadata.TargetsType) { r.Version++ }, "proposal.suspect"},
		"the same version":   {func(r *metadata.TargetsType) { r.Version-- }, "proposal.suspect"},
		"good for ten years": {func(r *metadata.TargetsType) { r.Expires = r.Expires.AddDate(10, 0, 0) }, "proposal.suspect"},
		"expired":            {func(r *metadata.TargetsType) { r.Expires = day0 }, "proposal.suspect"},
		"it delegates":       {func(r *metadata.TargetsType) { r.Delegations = &metadata.Delegations{Keys: map[string]*metadata.Key{}} }, "proposal.suspect"},
		"the floor falls":    {func(r *metadata.TargetsType) { r.UnrecognizedFields["custom"] = custom{Channel: "production"} }, "proposal.suspect"},
		"a floor above all": {func(r *metadata.TargetsType) {
			r.UnrecognizedFields["custom"] = custom{Channel: "production", Floors: map[string]int64{"gate": 9}}
		}, "proposal.suspect"},
		"another channel":   {func(r *metadata.TargetsType) { r.UnrecognizedFields["custom"] = custom{Channel: "dev"} }, "catalog.untrusted"},
		"a field of nobody": {func(r *metadata.TargetsType) { r.UnrecognizedFields["x"] = 1 }, "proposal.suspect"},
	} {
		prop, err := ReadProposal(file, p.trust(t), soon)
		if err != nil {
			t.Fatal(err)
		}
		x.change(&prop.md.Signed)
		prop.md.ClearSignatures()
		if err := prop.Sign(p.keys(t, "alice")); err != nil {
			t.Fatal(err)
		}
		bad := filepath.Join(t.TempDir(), "bad.json")
		if err := prop.Write(bad); err != nil {
			t.Fatal(err)
		}
		if _, err = ReadProposal(bad, p.trust(t), soon); code(err) != x.code {
			t.Errorf("%s: %v, want %q", name, err, x.code)
		}
	}
}

// TestForeignProposals wants what is not of the trusted root's making refused
// before anything in it is looked at.
func TestForeignProposals(t *testing.T) {
	p := newPublisher(t)
	file := p.proposed(t, "1.0.0", "alice")
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	other := newServer(t)
	dir := ceremony(t, onlineOf(other), "mallory")
	root, err := os.ReadFile(filepath.Join(dir, CatalogRootFile))
	if err != nil {
		t.Fatal(err)
	}
	edit := func(change func(*Proposal)) []byte {
		x := &Proposal{}
		if err := json.Unmarshal(text, x); err != nil {
			t.Fatal(err)
		}
		change(x)
		b, err := json.Marshal(x)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	for name, x := range map[string]struct {
		b    []byte
		code string
	}{
		"empty":             {nil, "proposal.malformed"},
		"cut":               {text[:len(text)/2], "proposal.malformed"},
		"a key twice":       {[]byte(`{"format":1,"format":1}`), "proposal.malformed"},
		"an unknown key":    {[]byte(`{"format":1,"then":"rm"}`), "proposal.malformed"},
		"a later format":    {edit(func(x *Proposal) { x.Format = 2 }), "proposal.malformed"},
		"another's root":    {edit(func(x *Proposal) { x.Base.Root = root }), "catalog.untrusted"},
		"no root":           {edit(func(x *Proposal) { x.Base.Root = []byte{} }), "metadata.malformed"},
		"no targets":        {edit(func(x *Proposal) { x.Base.Targets = []byte{} }), "metadata.malformed"},
		"another's base":    {edit(func(x *Proposal) { x.Base.Role = x.Role }), "catalog.untrusted"},
		"an unknown role":   {edit(func(x *Proposal) { x.Channel = "nightly" }), "catalog.untrusted"},
		"a floor far ahead": {edit(func(x *Proposal) { x.Base.Floor = 1 << 40 }), "catalog.untrusted"},
		"too long":          {append(text, make([]byte, maxProposal)...), "proposal.unknown"},
	} {
		bad := filepath.Join(t.TempDir(), "bad.json")
		if err := os.WriteFile(bad, x.b, 0o644); err != nil {
			t.Fatal(err)
		}
		if _, err := ReadProposal(bad, p.trust(t), soon); code(err) != x.code {
			t.Errorf("%s: %v, want %q", name, err, x.code)
		}
	}
}

// TestPromote takes one digest from dev to production, a signature of the channel's
// own holders at a time.
func TestPromote(t *testing.T) {
	p := newPublisher(t)
	ctx := context.Background()
	dir := packed(t, "1.0.0", labels)
	dev, err := p.publish(p.conf(t, dir, "dev", "alice"))
	if err != nil {
		t.Fatal(err)
	}
	promote := func(c PromoteConfig) (*Published, *Proposal, error) {
		c.Model, c.Trust = "gate", p.trust(t)
		if c.Version == "" {
			c.Version = "1.0.0"
		}
		return p.client.Promote(ctx, c, day0.Add(time.Hour))
	}
	for name, x := range map[string]struct {
		conf PromoteConfig
		code string
	}{
		"not in staging yet": {PromoteConfig{To: "production"}, "release.unknown"},
		"nothing before dev": {PromoteConfig{To: "dev"}, "promote.channel"},
		"to itself":          {PromoteConfig{From: "dev", To: "dev"}, "promote.channel"},
		"no such channel":    {PromoteConfig{From: "dev", To: "nightly"}, "channel.unknown"},
		"no such version":    {PromoteConfig{Version: "2.0.0", To: "staging"}, "release.unknown"},
		"a stranger's key":   {PromoteConfig{To: "staging", Keys: []*offline.Key{{ID: "0123"}}}, "publish.key"},
	} {
		_, _, err := promote(x.conf)
		if code(err) != x.code {
			t.Errorf("%s: %v, want %s", name, err, x.code)
		}
	}
	n := len(p.writes)
	got, prop, err := promote(PromoteConfig{From: "dev", To: "production", Keys: p.keys(t, "bob")})
	if err != nil || got.Digest != dev.Digest || got.Path != "production/gate/1.0.0" || got.Signing.Missing != 1 {
		t.Fatalf("%+v, %v", got, err)
	}
	wantCode(t, p.client.Complete(ctx, prop), "publish.threshold")
	if len(p.writes) != n {
		t.Errorf("sent before it was signed: %v", p.writes[n:])
	}
	if err := prop.Sign(p.keys(t, "carol")); err != nil {
		t.Fatal(err)
	}
	if err := p.client.Complete(ctx, prop); err != nil {
		t.Fatal(err)
	}
	rs, err := p.db.Releases(ctx, fleet.ReleaseFilter{Channel: "production"})
	if err != nil || len(rs) != 1 || rs[0].Digest != dev.Digest {
		t.Errorf("%v, %v", rs, err)
	}
	if got, prop, err = promote(PromoteConfig{From: "dev", To: "production", Keys: p.keys(t, "bob")}); err != nil || !got.Already || prop != nil {
		t.Errorf("the second time: %+v, %v", got, err)
	}
	// What the floor of a channel has left behind does not go on from there.
	c := p.conf(t, packed(t, "1.1.0", labels), "dev", "alice")
	c.Floor = 2
	if _, err := p.publish(c); err != nil {
		t.Fatal(err)
	}
	_, _, err = promote(PromoteConfig{To: "staging", Keys: p.keys(t, "bob")})
	wantCode(t, err, "promote.below_floor")
}

// TestStandings tells of each channel who has signed it.
func TestStandings(t *testing.T) {
	p := newPublisher(t)
	if _, err := p.publish(p.conf(t, packed(t, "1.0.0", labels), "production", "bob", "carol")); err != nil {
		t.Fatal(err)
	}
	list, err := p.client.Standings(context.Background(), p.trust(t))
	if err != nil || len(list) != 3 {
		t.Fatalf("%+v, %v", list, err)
	}
	prod := list[2]
	if d := cmp.Diff(Signing{2, []string{"bob", "carol"}, []string{"alice"}, 0}, prod.Signing); d != "" {
		t.Error(d)
	}
	if prod.Channel != "production" || prod.Version != 2 || prod.Releases != 1 || list[0].Version != 1 || list[0].Threshold != 1 {
		t.Errorf("%+v", list)
	}
}

func FuzzProposal(f *testing.F) {
	for _, seed := range []string{"", "{}", `{"format":1}`, `{"format":1,"channel":"dev","base":{"root":"e30=","targets":"","role":null},"role":"e30="}`, `{"format":1,"channel":{}}`} {
		f.Add([]byte(seed))
	}
	t := &Trust{Root: []byte("{}")}
	f.Fuzz(func(tt *testing.T, b []byte) {
		p, err := parseProposal(b)
		if err != nil {
			return
		}
		if _, err := t.channel(p.Channel, p.Base); err == nil {
			tt.Error("a channel without a root is trusted")
		}
	})
}
