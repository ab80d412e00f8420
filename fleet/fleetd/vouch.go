package fleetd

import (
	"errors"
	"slices"

	"github.com/dunlin-edge/dunlin/fleet"
	"github.com/dunlin-edge/dunlin/fleet/modelsig"
)

// vouching loads what the configuration asks for; relative paths begin in the
// server's directory.
func (c *Config) vouching() (modelsig.Policies, error) {
	v := modelsig.Policies{}
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
