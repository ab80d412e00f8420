package catalog

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strings"

	"github.com/theupdateframework/go-tuf/v2/metadata"

	"github.com/dunlin-edge/dunlin/fleet"
	"github.com/dunlin-edge/dunlin/shared/bundle"
)

// RoleCustom is the custom object of the role of a channel or of a team in it.
type RoleCustom struct {
	Channel string           `json:"channel"`
	Floors  map[string]int64 `json:"floors,omitempty"` // by model: the lowest counter that may be activated
}

// Custom reads the custom object of a role.
func Custom(md *metadata.Metadata[metadata.TargetsType]) (RoleCustom, error) {
	var c RoleCustom
	b, err := json.Marshal(md.Signed.UnrecognizedFields["custom"])
	if err != nil {
		return c, err
	}
	return c, json.Unmarshal(b, &c)
}

// Ingest takes in the next version of the role of a channel or a team. The signatures must reach
// the delegation's threshold; what was published stays as it was; each new
// release is a whole and valid bundle whose blobs are here, under a counter above
// those of its model. Snapshot and timestamp follow in the same transaction.
func (s *Service) Ingest(ctx context.Context, role string, b []byte, actor string) ([]fleet.Release, error) {
	st, err := s.state(ctx)
	if err != nil {
		return nil, err
	}
	if len(st.Rows) == 0 {
		return nil, fleet.ErrCatalogEmpty
	}
	have, ok := st.Rows[role]
	if _, valid := fleet.ChannelOf(role); !ok || !valid {
		return nil, refuse("there is no channel or team %q", role)
	}
	targets, err := parse(st.Rows[metadata.TARGETS].Bytes, MaxTargets, metadata.Targets())
	if err != nil {
		return nil, err
	}
	old, err := parse(have.Bytes, MaxTargets, metadata.Targets())
	if err != nil {
		return nil, err
	}
	floor, err := s.Store.RoleFloor(ctx, role)
	if err != nil {
		return nil, err
	}
	md, err := s.checkRole(targets, role, b, max(have.Version, floor)+1)
	if err != nil {
		return nil, err
	}
	if err := checkCustom(role, old, md); err != nil {
		return nil, err
	}
	if err := ownFloors(targets, role, old, md); err != nil {
		return nil, err
	}
	releases, signers, err := s.newReleases(targets, role, old, md)
	if err != nil {
		return nil, err
	}
	row := fleet.MetaRow{Repo: Repo, Role: role, Version: md.Signed.Version, Bytes: b}
	expect := []fleet.MetaRow{have, st.Rows[metadata.SNAPSHOT], st.Rows[metadata.TIMESTAMP]}
	st.Rows[role] = row
	online, err := s.online(st.Rows, s.inUse())
	if err != nil {
		return nil, err
	}
	now := s.Now()
	a := fleet.Audit{ID: fleet.NewID(fleet.PrefixAudit, now), At: now, Actor: actor, Act: "catalog.publish", Object: role, Detail: strings.Join(append(names(releases), signers...), " ")}
	if err := s.Store.PutMetadata(ctx, append([]fleet.MetaRow{row}, online...), expect, releases, a); err != nil {
		return nil, fmt.Errorf("publish: %w", err)
	}
	s.Log.Info("published", "role", role, "version", row.Version, "releases", names(releases), "signatures", signers)
	s.changed()
	return releases, nil
}

func names(rs []fleet.Release) []string {
	var out []string
	for i := range rs {
		out = append(out, rs[i].Path())
	}
	return out
}

// checkCustom wants the role to name its channel and no floor to fall.
func checkCustom(role string, old, md *targetsFile) error {
	before, err := Custom(old)
	if err != nil {
		return refuse("role %s: custom: %v", role, err)
	}
	after, err := ownCustom(role, md)
	if err != nil {
		return err
	}
	for model, floor := range before.Floors {
		if after.Floors[model] < floor {
			return refuse("role %s: the floor of %s falls from %d to %d", role, model, floor, after.Floors[model])
		}
	}
	return floorsInReach(role, after, md)
}

// ownFloors wants a role to raise floors of its own models only: devices read no
// others of it.
func ownFloors(targets *targetsFile, role string, old, md *targetsFile) error {
	before, err := Custom(old)
	if err != nil {
		return err
	}
	after, err := ownCustom(role, md)
	if err != nil {
		return err
	}
	for model, floor := range after.Floors {
		if other := owner(targets, after.Channel, model); other != role && floor != before.Floors[model] {
			return refuse("role %s raises the floor of %s, which role %s signs", role, model, other)
		}
	}
	return nil
}

// ownCustom is the custom object of a role that names its channel.
func ownCustom(role string, md *targetsFile) (RoleCustom, error) {
	c, err := Custom(md)
	if err != nil {
		return c, refuse("role %s: custom: %v", role, err)
	}
	if channel, _ := fleet.ChannelOf(role); c.Channel != channel {
		return c, refuse("role %s says that it is of channel %q", role, c.Channel)
	}
	return c, nil
}

// newReleases checks that every former target is unchanged and judges the others;
// signers says whose model signatures were verified.
func (s *Service) newReleases(targets *targetsFile, role string, old, md *targetsFile) (out []fleet.Release, signers []string, err error) {
	for path, t := range old.Signed.Targets {
		n := md.Signed.Targets[path]
		if n == nil || !n.Equal(*t) {
			return nil, nil, fleet.ErrReleaseExists.With("%s was published and can neither change nor go", path)
		}
	}
	highest, err := counters(old)
	if err != nil {
		return nil, nil, err
	}
	channel, _ := fleet.ChannelOf(role)
	for path, t := range md.Signed.Targets {
		if old.Signed.Targets[path] != nil {
			continue
		}
		r, signer, err := s.judge(channel, path, t)
		if err != nil {
			return nil, nil, err
		}
		if other := owner(targets, channel, r.Model); other != role {
			return nil, nil, refuse("%s is signed by role %s, which devices do not ask about it; role %s signs %s", path, role, other, r.Model)
		}
		out = append(out, *r)
		if signer != "" {
			signers = append(signers, fmt.Sprintf("(%s: model signature of %s)", r.Model, signer))
		}
	}
	slices.SortFunc(out, func(a, b fleet.Release) int {
		return cmp.Or(cmp.Compare(a.Counter, b.Counter), strings.Compare(a.Path(), b.Path()))
	})
	for _, r := range out {
		if r.Counter <= highest[r.Model] {
			return nil, nil, refuse("%s: counter %d is not above %d", r.Path(), r.Counter, highest[r.Model])
		}
		if r.Counter > highest[r.Model]+maxCounterStep {
			return nil, nil, refuse("%s: counter %d is more than %d above %d", r.Path(), r.Counter, maxCounterStep, highest[r.Model])
		}
		highest[r.Model] = r.Counter
	}
	return out, signers, nil
}

// maxCounterStep is how far the counter of a release may be above the one before: a
// stolen key cannot take all the numbers that there are, after which nothing newer
// could ever be signed.
const maxCounterStep = 1_000_000

// floorsInReach wants no floor to be beyond what the next release can have: a floor
// never falls, so one that no counter reaches would end the model's name in the
// channel for good.
func floorsInReach(role string, c RoleCustom, md *targetsFile) error {
	highest, err := counters(md)
	if err != nil {
		return refuse("role %s: %v", role, err)
	}
	for model, floor := range c.Floors {
		if floor > highest[model]+1 {
			return refuse("role %s: the floor of %s is %d, its newest release has counter %d", role, model, floor, highest[model])
		}
	}
	return nil
}

// counters are the greatest of each model in a role.
func counters(md *metadata.Metadata[metadata.TargetsType]) (map[string]int64, error) {
	highest := map[string]int64{}
	for path, t := range md.Signed.Targets {
		c, err := customOf(path, t)
		if err != nil {
			return nil, err
		}
		highest[c.Release.Model] = max(highest[c.Release.Model], c.Release.Counter)
	}
	return highest, nil
}

func customOf(path string, t *metadata.TargetFiles) (c bundle.Custom, err error) {
	if t.Custom == nil || json.Unmarshal(*t.Custom, &c) != nil {
		return c, fmt.Errorf("%s in the catalog says nothing of its release", path)
	}
	return c, nil
}

// judge opens the bundle behind a new target and compares it with what is signed.
func (s *Service) judge(channel, path string, t *metadata.TargetFiles) (r *fleet.Release, signer string, err error) {
	hash, ok := t.Hashes["sha256"]
	if !ok || len(t.Hashes) != 1 || t.Length <= 0 || t.Length > bundle.MaxManifest || t.Custom == nil {
		return nil, "", refuse("%s: a length, a SHA-256 and nothing else, and a custom object wanted", path)
	}
	digest := "sha256:" + hash.String()
	manifest, err := s.read(digest, t.Length)
	if err != nil {
		return nil, "", err
	}
	b, err := bundle.Read(manifest, s.Blobs)
	if err != nil {
		return nil, "", bundleError(path, err)
	}
	if err := b.Verify(); err != nil {
		return nil, "", bundleError(path, err)
	}
	var c bundle.Custom
	if err := json.Unmarshal(*t.Custom, &c); err != nil {
		return nil, "", refuse("%s: custom: %v", path, err)
	}
	want, err := json.Marshal(bundle.Custom{Release: b.Release(c.Release.Counter)})
	if err != nil {
		return nil, "", err
	}
	have, err := json.Marshal(c)
	if err != nil {
		return nil, "", err
	}
	if string(want) != string(have) || path != bundle.TargetPath(channel, c.Release.Model, c.Release.Version) {
		return nil, "", refuse("%s: what is signed about the release is not what its bundle says", path)
	}
	now := s.Now()
	if s.Vouch != nil {
		if signer, err = s.Vouch(channel, b, now); err != nil {
			return nil, "", err
		}
	}
	r = &fleet.Release{ID: fleet.NewID(fleet.PrefixRelease, now), Channel: channel, Release: c.Release, Digest: digest, Length: t.Length, Published: now, Blobs: []string{digest}}
	for _, d := range b.Manifest.Blobs() {
		r.Blobs = append(r.Blobs, d.Digest)
	}
	return r, signer, nil
}

func (s *Service) read(digest string, length int64) ([]byte, error) {
	f, err := s.Blobs.Open(digest)
	if err != nil {
		return nil, bundleError(digest, err)
	}
	defer f.Close()
	b, err := io.ReadAll(bundle.VerifyReader(f, bundle.Descriptor{Digest: digest, Size: length}))
	if err != nil {
		return nil, bundleError(digest, err)
	}
	return b, nil
}

func bundleError(what string, err error) error {
	if errors.Is(err, fs.ErrNotExist) || bundle.Code(err) == bundle.CodeBlobMissing {
		return fleet.ErrBundleIncomplete.With("%s: %v", what, err)
	}
	return fleet.ErrBundleRefused.With("%s: %v", what, err)
}
