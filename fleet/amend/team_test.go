package amend

import (
	"encoding/json"
	"slices"
	"testing"

	"github.com/theupdateframework/go-tuf/v2/metadata"

	"github.com/dunlin-edge/dunlin/fleet/offline"
	"github.com/dunlin-edge/dunlin/fleet/publish"
)

var vision = publish.Team{Name: "vision", Channel: "production", Models: []string{"gate"}, Members: []string{"ada", "ben"}, Threshold: 2}

// release is a target as a role has it.
func release(t *testing.T, model, version string) *metadata.TargetFiles {
	t.Helper()
	x, err := metadata.TargetFile().FromBytes(model, []byte(model+version))
	if err != nil {
		t.Fatal(err)
	}
	custom := json.RawMessage(`{"release":{"kind":"model","model":"` + model + `","version":"` + version + `","counter":1}}`)
	x.Custom = &custom
	return x
}

// published has the server hold a release in a role, signed by ada and ben or by nobody.
func (p *play) published(t *testing.T, role, model, version string, floor int64, signed bool) {
	t.Helper()
	md := metadata.Targets(now.Add(publish.RoleLife))
	md.Signed.Version = 7
	md.Signed.Targets["production/"+model+"/"+version] = release(t, model, version)
	md.Signed.UnrecognizedFields = map[string]any{"custom": custom{"production", map[string]int64{model: floor}}}
	for i := 0; signed && i < 2; i++ {
		if err := offline.SignPaper(md, p.keys[p.cer.Joined[i].Where(p.Dir, publish.KindRelease)]); err != nil {
			t.Fatal(err)
		}
	}
	b, err := md.ToBytes(true)
	if err != nil {
		t.Fatal(err)
	}
	p.State.put(role+".json", b)
}

func (a *Amendment) text(t *testing.T, file string) *targetsFile {
	t.Helper()
	i := slices.IndexFunc(a.papers, func(p paper) bool { return p.file == file })
	if i < 0 {
		t.Fatalf("%s is not among the papers", file)
	}
	return a.papers[i].paper.(*targetsFile)
}

// TestTeamTakesOver has what was published of a model go to the team, with its floor,
// and nothing that nobody has signed: a server may show roles of its own making.
func TestTeamTakesOver(t *testing.T) {
	b := begun(t)
	b.published(t, "production", "gate", "1.0.0", 1, true)
	b.published(t, "production.evil", "gate", "6.6.6", 99, false)
	b.published(t, "production.vision", "gate", "6.6.7", 98, false)
	a, err := b.Team(vision)
	if err != nil {
		t.Fatal(err)
	}
	md := a.text(t, "production.vision.json")
	c, err := customOf(md)
	if err != nil || len(md.Signed.Targets) != 1 || md.Signed.Targets["production/gate/1.0.0"] == nil || c.Floors["gate"] != 1 || md.Signed.Version != 8 {
		t.Errorf("version %d, %v, floors %v, %v", md.Signed.Version, md.Signed.Targets, c.Floors, err)
	}
	if slices.ContainsFunc(a.papers, func(p paper) bool { return p.file == "production.json" }) {
		t.Error("the channel's role is signed again for nothing")
	}
	list, err := a.Status()
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(list, func(s Signed) bool { return s.File == "production.vision.json" })
	if s := list[i]; s.Threshold != 2 || !slices.Equal(s.Open, []string{"ada", "ben"}) {
		t.Errorf("%+v", s)
	}
	if _, err := a.sign(b.Dir, "cleo", b.open); err != nil {
		t.Fatal(err)
	}
	if list, _ := a.Status(); len(list[i].By) > 0 {
		t.Error("somebody who is not in the team signed for it")
	}
}

// TestTeamAtImpossibleVersion stops at a version that would use a name up.
func TestTeamAtImpossibleVersion(t *testing.T) {
	b := begun(t)
	b.published(t, "production.vision", "gate", "1.0.0", 1, false)
	md, err := offline.Parse[metadata.TargetsType]("role", b.State.Roles["production.vision"])
	if err != nil {
		t.Fatal(err)
	}
	md.Signed.Version = 1 << 62
	if b.State.Roles["production.vision"], err = md.ToBytes(true); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Team(vision); code(err) != "amendment.suspect" {
		t.Error(err)
	}
}

// TestTeamActs refuses teams that cannot be.
func TestTeamActs(t *testing.T) {
	with := func(change func(*publish.Team)) publish.Team { x := vision; change(&x); return x }
	for name, x := range map[string]struct {
		want string
		team publish.Team
	}{
		"nobody knows":      {"team.unknown", with(func(x *publish.Team) { x.Models = nil })},
		"one alone":         {"team.threshold", with(func(x *publish.Team) { x.Threshold = 1 })},
		"more than members": {"team.threshold", with(func(x *publish.Team) { x.Threshold = 3 })},
		"a stranger":        {"holder.unknown", with(func(x *publish.Team) { x.Members = []string{"ada", "eve"} })},
		"one of them twice": {"holder.unknown", with(func(x *publish.Team) { x.Members = []string{"ada", "ada"} })},
		"no channel":        {"channel.unknown", with(func(x *publish.Team) { x.Channel = "home" })},
		"no name":           {"team.malformed", with(func(x *publish.Team) { x.Name = "Vi.sion" })},
		"a pattern":         {"team.models", with(func(x *publish.Team) { x.Models = []string{"*"} })},
		"a model twice":     {"team.models", with(func(x *publish.Team) { x.Models = []string{"gate", "gate"} })},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := begun(t).Team(x.team); code(err) != x.want {
				t.Errorf("%v, want %s", err, x.want)
			}
		})
	}
}

// TestDrillWithTeam rehearses for a fleet that has one.
func TestDrillWithTeam(t *testing.T) {
	shape := &publish.Ceremony{Format: 1, Holders: 3, Threshold: 2, Joined: []publish.Holder{{Name: "ada"}, {Name: "ben"}, {Name: "cleo"}}, Teams: []publish.Team{vision}}
	b, err := copyOf(shape, t.TempDir(), now)
	if err != nil {
		t.Fatal(err)
	}
	d, err := Drill(b.Dir, publish.KindRelease, now)
	if err != nil || !d.Theft.Follows || !slices.Contains(d.Theft.Files, "production.vision.json") {
		t.Errorf("%+v, %v", d, err)
	}
}
