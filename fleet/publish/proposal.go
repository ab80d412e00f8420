package publish

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/theupdateframework/go-tuf/v2/metadata"

	"github.com/dunlin-edge/dunlin/fleet"
	"github.com/dunlin-edge/dunlin/fleet/offline"
	"github.com/dunlin-edge/dunlin/shared/bundle"
)

const (
	proposalFormat = 1
	maxProposal    = 4 * offline.MaxPaper // bytes of the file: three papers in base64
)

// Proposal is the next version of a channel's role while it waits for signatures.
// As a file it travels from holder to holder and brings with it what says who may
// sign; each verifies that up to the root that they trust, and sees what would
// change before they sign.
type Proposal struct {
	Format  int       `json:"format"`
	Channel string    `json:"channel"`
	Team    string    `json:"team,omitempty"` // whose role it is; empty: the channel's
	Made    time.Time `json:"made"`
	Base    files     `json:"base"` // what the server had
	Role    []byte    `json:"role"` // the next version, with the signatures so far

	ch *channel
	md *metadata.Metadata[metadata.TargetsType]
}

// RoleName is the name of the role, as "production" or "production.vision".
func (p *Proposal) RoleName() string {
	if p.Team != "" {
		return fleet.TeamRole(p.Channel, p.Team)
	}
	return p.Channel
}

// Signing is how far the signing of a role has come.
type Signing struct {
	Threshold int      `json:"threshold"`
	By        []string `json:"signed_by"`
	Open      []string `json:"could_sign"`
	Missing   int      `json:"missing"` // signatures until the threshold
}

// Change is one thing that a proposal changes.
type Change struct {
	Path    string `json:"path,omitempty"` // of a new release
	Digest  string `json:"digest,omitempty"`
	Counter int64  `json:"counter,omitempty"`
	Model   string `json:"model"`
	Floor   int64  `json:"floor,omitempty"` // of the model, if it rises
}

// ReadProposal reads a proposal and verifies that it changes nothing but what
// Changes lists.
func ReadProposal(path string, t *Trust, now time.Time) (*Proposal, error) {
	b, err := offline.ReadBounded(path, maxProposal)
	if err != nil {
		return nil, refuse("proposal.unknown", "name the file that 'dunlin model publish --proposal' wrote", "read the proposal: %v", err)
	}
	p, err := parseProposal(b)
	if err != nil {
		return nil, err
	}
	if p.ch, err = t.channel(p.RoleName(), p.Base); err != nil {
		return nil, err
	}
	if p.md, err = offline.Parse[metadata.TargetsType]("role "+p.RoleName(), p.Role); err != nil {
		return nil, err
	}
	if _, err := p.changes(now); err != nil {
		return nil, err
	}
	return p, nil
}

func parseProposal(b []byte) (*Proposal, error) {
	wrong := func(why any) error {
		return refuse("proposal.malformed", "take the file as it was made", "the proposal is not understood: %v", why)
	}
	if err := bundle.StrictJSON(b); err != nil {
		return nil, wrong(err)
	}
	p := &Proposal{}
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(p); err != nil {
		return nil, wrong(err)
	}
	if p.Format != proposalFormat {
		return nil, wrong(fmt.Sprintf("format %d, this program reads %d", p.Format, proposalFormat))
	}
	return p, nil
}

// Write writes the proposal with its signatures.
func (p *Proposal) Write(path string) error {
	var err error
	if p.Role, err = p.md.ToBytes(false); err != nil {
		return err
	}
	b, err := json.MarshalIndent(p, "", "  ")
	if err != nil {
		return err
	}
	return offline.ReplaceFile(path, append(b, '\n'))
}

// Sign adds signatures. A key that may not sign for the channel signs nothing, nor
// do the others with it.
func (p *Proposal) Sign(keys []*offline.Key) error {
	if err := p.ch.mayAll(keys); err != nil {
		return err
	}
	for _, k := range keys {
		if err := offline.SignPaper(p.md, k); err != nil {
			return fmt.Errorf("sign %s: %w", p.RoleName(), err)
		}
	}
	return nil
}

// Signing tells who has signed and who could.
func (p *Proposal) Signing() *Signing { return p.ch.signing(p.md) }

func (c *channel) signing(md *metadata.Metadata[metadata.TargetsType]) *Signing {
	by := c.signedBy(md)
	return &Signing{Threshold: c.role.Threshold, By: c.holders(by), Open: c.open(by), Missing: max(0, c.role.Threshold-len(by))}
}

// enough refuses a proposal below its channel's threshold.
func (p *Proposal) enough() error {
	s := p.Signing()
	if s.Missing == 0 {
		return nil
	}
	return refuse("publish.threshold", "pass one more --key, of: "+strings.Join(s.Open, ", ")+"; or --proposal FILE, for them to sign elsewhere",
		"%s wants %d signatures, there are %d", p.ch.title(), s.Threshold, len(s.By))
}

// Complete publishes a proposal that has its signatures. If somebody else published
// in the channel meanwhile it is catalog.stale, and is to be made anew.
func (c *Client) Complete(ctx context.Context, p *Proposal) error {
	if err := p.enough(); err != nil {
		return err
	}
	role, err := p.md.ToBytes(false)
	if err != nil {
		return err
	}
	_, err = c.do(ctx, http.MethodPut, "/v1/catalog/roles/"+p.RoleName(), &body{bytes.NewReader(role), int64(len(role)), "application/json"})
	return err
}

// Expires is when the proposed role ends.
func (p *Proposal) Expires() time.Time { return p.md.Signed.Expires }

// Changes lists what the proposal changes; it was verified when the proposal was
// read.
func (p *Proposal) Changes(now time.Time) ([]Change, error) { return p.changes(now) }

func (p *Proposal) changes(now time.Time) ([]Change, error) {
	base, next := &p.ch.md.Signed, &p.md.Signed
	if p.ch.md == p.md { // just made: compare with what was fetched
		md, err := offline.Parse[metadata.TargetsType]("role "+p.RoleName(), p.Base.Role)
		if err != nil {
			return nil, err
		}
		base = &md.Signed
	}
	switch {
	case next.Version != p.ch.next:
		return nil, suspect("it has version %d, %d would be next", next.Version, p.ch.next)
	case next.Delegations != nil:
		return nil, suspect("it delegates, which it may not")
	case !next.Expires.After(now) || next.Expires.After(now.Add(RoleLife+24*time.Hour)):
		return nil, suspect("it expires at %s, %d days from its making are usual", next.Expires.Format(time.RFC3339), int(RoleLife.Hours()/24))
	}
	was := &channel{name: p.Channel, md: &metadata.Metadata[metadata.TargetsType]{Signed: *base}}
	is := &channel{name: p.Channel, md: p.md}
	added, err := additions(was, is)
	for _, x := range added {
		if o := owner(p.ch.delegations, p.Channel, x.Model); o != p.RoleName() {
			return nil, suspect("devices take %s of role %q only", x.Model, o)
		}
	}
	if err != nil {
		return nil, err
	}
	raised, err := raises(was, is)
	return append(added, raised...), err
}

// suspect refuses a proposal that would do what no dunlin proposes.
func suspect(format string, args ...any) error {
	return refuse("proposal.suspect", "do not sign; ask who made it", "the proposal is not as it should be: %s", fmt.Sprintf(format, args...))
}

// additions lists the new releases; none may have gone or changed.
func additions(was, is *channel) ([]Change, error) {
	for path, t := range was.md.Signed.Targets {
		if n := is.md.Signed.Targets[path]; n == nil || !n.Equal(*t) {
			return nil, suspect("%s was published and would change or go", path)
		}
	}
	list := []Change{}
	for path, t := range is.md.Signed.Targets {
		if was.md.Signed.Targets[path] != nil {
			continue
		}
		r, err := released(path, t)
		if err != nil {
			return nil, err
		}
		high, err := was.highest(r.Model)
		if err != nil {
			return nil, err
		}
		hash, ok := t.Hashes["sha256"]
		if path != bundle.TargetPath(is.name, r.Model, r.Version) || r.Counter <= high || !ok || len(t.Hashes) != 1 {
			return nil, suspect("%s is %s %s with counter %d, above %d wanted", path, r.Model, r.Version, r.Counter, high)
		}
		list = append(list, Change{Path: path, Digest: "sha256:" + hash.String(), Counter: r.Counter, Model: r.Model})
	}
	slices.SortFunc(list, func(a, b Change) int { return strings.Compare(a.Path, b.Path) })
	return list, nil
}

// raises lists the floors that rise; none may fall, or forbid everything.
func raises(was, is *channel) ([]Change, error) {
	before, err := was.custom()
	if err != nil {
		return nil, err
	}
	after, err := is.custom()
	if err != nil {
		return nil, err
	}
	if fields := is.md.Signed.UnrecognizedFields; len(fields) != 1 {
		return nil, suspect("it has %d fields of its own, one is known", len(fields))
	}
	for model, floor := range before.Floors {
		if after.Floors[model] < floor {
			return nil, suspect("the floor of %s would fall from %d to %d", model, floor, after.Floors[model])
		}
	}
	list := []Change{}
	for model, floor := range after.Floors {
		if floor == before.Floors[model] {
			continue
		}
		high, err := is.highest(model)
		if err != nil {
			return nil, err
		}
		if floor > high {
			return nil, suspect("a floor of %d would forbid every release of %s", floor, model)
		}
		list = append(list, Change{Model: model, Floor: floor})
	}
	slices.SortFunc(list, func(a, b Change) int { return strings.Compare(a.Model, b.Model) })
	return list, nil
}
