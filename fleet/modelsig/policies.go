package modelsig

import (
	"errors"
	"net/http"
	"time"

	"github.com/dunlin-edge/dunlin/fleet"
	"github.com/dunlin-edge/dunlin/shared/bundle"
)

// Policies says by channel whose model.sig a release must carry; a channel that is not
// named wants nobody's.
type Policies map[string]*Policy

// Vouch verifies a bundle's model.sig as the channel wants it and names who made it;
// "" where none is wanted.
func (ps Policies) Vouch(channel string, b *bundle.Bundle, now time.Time) (signer string, err error) {
	p := ps[channel]
	if p == nil {
		return "", nil
	}
	s, err := VerifyBundle(b, p, now)
	var refused *fleet.Error
	if errors.As(err, &refused) {
		outward := *refused
		outward.Status = http.StatusUnprocessableEntity
		return "", &outward
	}
	if err != nil {
		return "", err
	}
	return s.Signer, nil
}
