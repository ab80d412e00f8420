package update

import (
	"fmt"

	"github.com/dunlin-edge/dunlin/agent/slots"
	"github.com/dunlin-edge/dunlin/shared/bundle"
)

// proofs is what the pairs of one model showed on this device, oldest first. It says
// how a slot is served best; a slot without one is served all the same.
type proofs struct {
	List []proofRecord `json:"list"`
}

type proofRecord struct {
	Bundle  string       `json:"bundle"`
	Runtime string       `json:"runtime"`
	Proof   bundle.Proof `json:"proof"`
}

func (p *proofs) find(pair slots.Pair) *bundle.Proof {
	for i := range p.List {
		if p.List[i].Bundle == pair.Bundle && p.List[i].Runtime == pair.Runtime {
			return &p.List[i].Proof
		}
	}
	return nil
}

// keepProof stores what a pair showed, and drops what pairs showed that are in no
// place any more.
func (e *Engine) keepProof(name string, pair slots.Pair, p *bundle.Proof) error {
	if p == nil {
		return nil
	}
	_, s, err := e.look(name)
	if err != nil {
		return err
	}
	all, _, err := e.proofs.Get(name)
	if err != nil {
		return fmt.Errorf("read proofs of %s: %w", name, err)
	}
	var kept proofs
	for _, x := range all.List {
		if had := (slots.Pair{Bundle: x.Bundle, Runtime: x.Runtime}); had != pair && s.Find(had) != slots.None {
			kept.List = append(kept.List, x)
		}
	}
	kept.List = append(kept.List, proofRecord{pair.Bundle, pair.Runtime, *p})
	if err := e.proofs.Put(name, kept); err != nil {
		return fmt.Errorf("write proofs of %s: %w", name, err)
	}
	return nil
}

// proof is what a pair showed, nil if that is not known: a slot serves without it.
func (e *Engine) proof(name string, pair slots.Pair) *bundle.Proof {
	all, _, err := e.proofs.Get(name)
	if err != nil {
		e.log.Warn("a proof is not known", "model", name, "err", err)
		return nil
	}
	return all.find(pair)
}

// addProofs fills in what the pairs of a status showed.
func (e *Engine) addProofs(st *Status) error {
	all, _, err := e.proofs.Get(st.Model)
	if err != nil {
		return fmt.Errorf("read proofs of %s: %w", st.Model, err)
	}
	for _, s := range []*SlotStatus{st.Active, st.Candidate, st.Previous} {
		if s != nil {
			s.Proof = all.find(slots.Pair{Bundle: s.Bundle, Runtime: s.Runtime})
		}
	}
	return nil
}
