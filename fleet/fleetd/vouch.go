package fleetd

import (
	"errors"
	"net/http"
	"slices"
	"time"

	"github.com/dunlin-edge/dunlin/fleet"
	"github.com/dunlin-edge/dunlin/fleet/modelsig"
	"github.com/dunlin-edge/dunlin/shared/bundle"
)

// vouching is whose model.sig the releases of a channel must carry; a channel that
// is not named wants nobody's.
type vouching map[string]*modelsig.Policy

// vouching loads what the configuration asks for; relative paths begin in the
// server's directory.
func (c *Config) vouching() (vouching, error) {
	v := vouching{}
	for channel, r := range c.Signatures {
		if !slices.Contains(fleet.Channels, channel) {
			return nil, fleet.ErrServerConfig.With("%s: signatures: there is no channel %q", configFile, channel)
		}
		p, err := r.Load(c.Dir)
		if err == nil && p == nil {
			err = errors.New("a key, certificates or an identity is wanted")
		}
		if err != nil {
			return nil, fleet.ErrServerConfig.With("%s: signatures: %s: %v", configFile, channel, err)
		}
		v[channel] = p
	}
	return v, nil
}

// vouch verifies a bundle's model.sig as the channel wants it and names who made it.
func (v vouching) vouch(channel string, b *bundle.Bundle, now time.Time) (signer string, err error) {
	p := v[channel]
	if p == nil {
		return "", nil
	}
	s, err := modelsig.VerifyBundle(b, p, now)
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
