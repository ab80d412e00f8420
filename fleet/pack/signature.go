package pack

import (
	"bytes"
	"io"
	"slices"

	"github.com/dunlin-edge/dunlin/fleet/modelsig"
	"github.com/dunlin-edge/dunlin/shared/bundle"
)

// specSigning says whose model signature the folder must carry, and what may lie
// there without it. SpecName always may, for it is the packer's own.
type specSigning struct {
	modelsig.Requirement `yaml:",inline"`
	Unsigned             []string `yaml:"unsigned"`
}

// signed verifies the folder's model.sig as model.yaml and the configuration ask.
// What is packed is compared with it once more: see vouched.
func (p *packer) signed() error {
	own, err := p.spec.Signing.Load(p.Dir)
	if err != nil {
		return err
	}
	for _, policy := range []*modelsig.Policy{own, p.Signature} {
		if policy == nil {
			continue
		}
		s, err := modelsig.VerifyFolder(p.Dir, "", policy, p.Now, p.unsigned()...)
		if err != nil {
			return err
		}
		p.statements = append(p.statements, s)
	}
	return nil
}

func (p *packer) unsigned() []string { return append([]string{SpecName}, p.spec.Signing.Unsigned...) }

// vouched refuses a bundle with a file that the signer did not sign: one that was
// left out of the signature by its signer, or changed since the folder was read.
func (p *packer) vouched(plan *Plan) error {
	files, err := modelsig.BundleFiles(plan.Manifest)
	if err != nil {
		return err
	}
	for _, s := range p.statements {
		for _, f := range files {
			if f.Name == bundle.ContractPath { // made here
				continue
			}
			if err := s.Covers(f, p.unsigned()...); err != nil {
				return err
			}
		}
	}
	return nil
}

// Sign adds a model.sig over every other file, the contract included. Equal plans
// and keys give equal bundles.
func (p *Plan) Sign(s *modelsig.Signer) error {
	if _, ok := p.Manifest.Lookup(modelsig.Name); ok {
		return refuse("pack.signature", "remove "+modelsig.Name+" from files in "+SpecName, "the bundle carries a %s already", modelsig.Name)
	}
	files, err := modelsig.BundleFiles(p.Manifest)
	if err != nil {
		return err
	}
	raw, err := s.Sign(p.Contract.Model, files)
	if err != nil {
		return err
	}
	signed, err := plan(p.Contract, append(slices.Clone(p.files), bundle.Source{
		Path: modelsig.Name, Open: func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(raw)), nil },
	}))
	if err != nil {
		return err
	}
	*p = *signed
	return nil
}
