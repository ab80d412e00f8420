package update

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"

	"github.com/dunlin-edge/dunlin/agent/slots"
	"github.com/dunlin-edge/dunlin/shared/bundle"
)

// fetch brings every blob of bundle and runtime that no place holds.
func (j *journey) fetch(ctx context.Context) error {
	if done, err := j.inPlace(); done || err != nil {
		return err
	}
	for _, src := range j.sources() {
		m, err := j.manifest(ctx, src)
		if err != nil {
			return err
		}
		for _, d := range m.Blobs() {
			if d.Digest == m.Config.Digest {
				continue // for other tools of the OCI world; the device does not need it
			}
			if held, err := j.held(d.Digest); err != nil {
				return err
			} else if held && d.Digest != m.Contract().Digest {
				continue
			}
			if _, err := j.e.repo.Download(ctx, d.Digest, d.Size); err != nil {
				return err
			}
		}
	}
	return nil
}

// source is one of the two bundles of a pair.
type source struct {
	digest string
	length int64
}

func (j *journey) sources() []source {
	return []source{{j.Target.Bundle, j.Target.Length}, {j.Target.Runtime, j.Target.RuntimeLen}}
}

// inPlace tells whether a place holds the pair whole already.
func (j *journey) inPlace() (bool, error) {
	_, s, err := j.e.look(j.model())
	if err != nil {
		return false, err
	}
	return s.Find(slots.Pair{Bundle: j.Target.Bundle, Runtime: j.Target.Runtime}) != slots.None, nil
}

// held tells whether a place of this model has a file of that digest. Once
// something was damaged everything is fetched.
func (j *journey) held(digest string) (bool, error) {
	if j.Losses > 0 {
		return false, nil
	}
	_, s, err := j.e.look(j.model())
	if err != nil {
		return false, err
	}
	for _, p := range []slots.Place{slots.A, slots.B} {
		for _, f := range s.Slot(p).Files {
			if f.Digest == digest && s.Slot(p).Content == slots.Complete {
				return true, nil
			}
		}
	}
	return false, nil
}

// manifest downloads and reads the manifest of a source. Its digest and length
// are signed, so one that does not parse was signed so: the pair is refused.
func (j *journey) manifest(ctx context.Context, s source) (*bundle.Manifest, error) {
	b, err := j.signed(ctx, s)
	if err != nil {
		return nil, err
	}
	m, err := bundle.ParseManifest(b)
	if err != nil {
		return nil, refusal(err)
	}
	return m, nil
}

// signed downloads the manifest of a source and reads the bytes that were signed.
func (j *journey) signed(ctx context.Context, s source) ([]byte, error) {
	p, err := j.e.repo.Download(ctx, s.digest, s.length)
	if err != nil {
		return nil, err
	}
	b, err := os.ReadFile(p)
	if err != nil {
		return nil, err
	}
	if bundle.DigestOf(b) != s.digest {
		return nil, errors.Join(errLost, j.e.repo.Forget(s.digest))
	}
	return b, nil
}

// refusal turns a coded error of the bundle into a Refusal with the same code
// under check. Bytes that are not those of their digest were damaged here: they
// were compared when they came.
func refusal(err error) error {
	switch code := bundle.Code(err); code {
	case "", bundle.CodeBlobMissing:
		return err
	case bundle.CodeBlobSize, bundle.CodeBlobDigest:
		return errors.Join(errLost, err)
	default:
		return &Refusal{"check." + code, err.Error()}
	}
}

// orFetchAgain drops what was downloaded when err says that it is damaged.
func (j *journey) orFetchAgain(err error) error {
	if !errors.Is(err, errLost) {
		return err
	}
	for _, s := range j.sources() {
		for _, d := range j.e.blobsOf(s.digest) {
			err = errors.Join(err, j.e.repo.Forget(d))
		}
	}
	return err
}

// blobsOf lists a bundle's manifest and, when that was downloaded, what it names.
func (e *Engine) blobsOf(digest string) []string {
	all := []string{digest}
	p, ok := e.repo.Have(digest)
	if !ok {
		return all
	}
	b, err := os.ReadFile(p)
	if err != nil {
		return all
	}
	m, err := bundle.ParseManifest(b)
	if err != nil {
		return all
	}
	for _, d := range m.Blobs() {
		all = append(all, d.Digest)
	}
	return all
}

// sweep drops every download that no journey needs. It does nothing while one is
// fetching or placing: the next sweep will.
func (e *Engine) sweep() error {
	if !e.blobs.TryLock() {
		return nil
	}
	defer e.blobs.Unlock()
	all, err := e.journals.All()
	if err != nil {
		return fmt.Errorf("read journals: %w", err)
	}
	keep := map[string]bool{}
	for _, jr := range all {
		if i := stepIndex(jr.Step); i < 0 || i > stepIndex("place") {
			continue
		}
		for _, digest := range []string{jr.Target.Bundle, jr.Target.Runtime} {
			for _, d := range e.blobsOf(digest) {
				keep[d] = true
			}
		}
	}
	return e.repo.Sweep(keep)
}

// blobs opens what was downloaded or is in a place, by digest.
type blobs struct {
	j   *journey
	ctx context.Context
}

// Open implements bundle.Blobs.
func (b blobs) Open(digest string) (io.ReadCloser, error) {
	if p, ok := b.j.e.repo.Have(digest); ok {
		return os.Open(p)
	}
	_, s, err := b.j.e.look(b.j.model())
	if err != nil {
		return nil, err
	}
	for _, p := range []slots.Place{slots.A, slots.B} {
		slot := s.Slot(p)
		for _, f := range slot.Files {
			if f.Digest == digest && slot.Content == slots.Complete {
				return os.Open(path.Join(slot.Dir, f.Name))
			}
		}
	}
	return nil, fmt.Errorf("blob %s: %w", digest, fs.ErrNotExist)
}

// open reads bundle and runtime from what was fetched.
func (j *journey) open(ctx context.Context) (model, runtime *bundle.Bundle, err error) {
	var out [2]*bundle.Bundle
	for i, s := range j.sources() {
		b, err := j.signed(ctx, s)
		if err != nil {
			return nil, nil, err
		}
		if out[i], err = bundle.Read(b, blobs{j, ctx}); err != nil {
			return nil, nil, j.orFetchAgain(refusal(err))
		}
	}
	return out[0], out[1], nil
}

// check judges the pair without running it: the contract is that of the release
// that was signed, the device is one it is meant for, the runtime is one it can
// use, and the file does what the contract says.
func (j *journey) check(ctx context.Context) error {
	if done, err := j.inPlace(); done || err != nil {
		return err
	}
	m, rt, err := j.open(ctx)
	if err != nil {
		return err
	}
	if err := j.fits(m.Contract, rt.Contract); err != nil {
		return err
	}
	if err := m.Check(); err != nil {
		return j.orFetchAgain(refusal(err))
	}
	return nil
}

func (j *journey) fits(m, rt *bundle.Contract) error {
	rel := j.Target.Custom.Release
	switch {
	case m.Kind != bundle.KindModel || m.Model != rel.Model || m.Version != rel.Version:
		return &Refusal{"check.release", fmt.Sprintf("the contract is of %s %s, the release is %s %s", m.Model, m.Version, rel.Model, rel.Version)}
	case rt.Kind != bundle.KindRuntime || rt.ABI == nil:
		return &Refusal{"check.runtime", "what the assignment names as runtime is none"}
	case m.Runtime != nil && (m.Runtime.Name != rt.ABI.Name || bundle.CompareNumbers(rt.ABI.Version, m.Runtime.Min) < 0):
		return &Refusal{"check.runtime", fmt.Sprintf("the model needs %s %s, the runtime is %s %s", m.Runtime.Name, m.Runtime.Min, rt.ABI.Name, rt.ABI.Version)}
	}
	for _, c := range []*bundle.Contract{m, rt} {
		sel, err := bundle.ParseSelector(c.Hardware)
		if err != nil {
			return refusal(err)
		}
		if !sel.Matches(j.e.facts) {
			return &Refusal{"check.hardware", fmt.Sprintf("%s is for %q, which this device is not", c.Model, c.Hardware)}
		}
	}
	return nil
}

// place makes the pair whole in the inactive place.
func (j *journey) place(ctx context.Context) error {
	if done, err := j.inPlace(); done || err != nil {
		return err
	}
	files, err := j.files(ctx)
	if err != nil {
		return err
	}
	return j.orFetchAgain(placeError(j.e.stage(j, files)))
}

// placeError tells damage of what was downloaded apart from a disk that cannot:
// the former is fetched again, the latter tried again.
func placeError(err error) error {
	switch {
	case errors.Is(err, slots.ErrName):
		return &Refusal{"check.name", err.Error()}
	case errors.Is(err, slots.ErrDigest):
		return errors.Join(errLost, err)
	}
	return err
}

// files lists the slot's files with the blobs that they come from.
func (j *journey) files(ctx context.Context) ([]placed, error) {
	m, rt, err := j.open(ctx)
	if err != nil {
		return nil, err
	}
	var out []placed
	add := func(name string, d bundle.Descriptor) {
		from, ok := j.e.repo.Have(d.Digest)
		if !ok {
			from = "" // a place holds it
		}
		out = append(out, placed{slots.File{Name: name, Digest: d.Digest, Size: d.Size}, from})
	}
	for _, d := range m.Manifest.Layers {
		add(d.Path(), d)
	}
	lib, ok := rt.Manifest.Lookup(rt.Contract.File)
	if !ok {
		return nil, &Refusal{"check.runtime", "the runtime's contract names a file that it lacks"}
	}
	add(runtimeDir+"/"+path.Base(lib.Path()), lib)
	return out, nil
}
