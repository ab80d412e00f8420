package agent

import (
	"errors"
	"io/fs"
	"path/filepath"

	"github.com/dunlin-edge/dunlin/agent/identity"
	"github.com/dunlin-edge/dunlin/agent/wipe"
	"github.com/dunlin-edge/dunlin/shared/durable"
)

// WhoIs is the device's id, empty where there is no identity or a damaged one.
func WhoIs(c Config) string {
	id, err := identity.Load(durable.OS{}, filepath.Join(c.State, "identity"))
	if err != nil {
		return ""
	}
	return id.Device
}

// Fingerprint is that of the device's key, enrolled or not; empty: there is none.
func Fingerprint(c Config) string {
	return identity.Fingerprint(durable.OS{}, filepath.Join(c.State, "identity"))
}

// Reset wipes the device's identity and all its data. Killed at any moment it leaves
// the device as it was, or one that the next start or reset makes clean. An agent
// that runs is left alone: agent.running.
func Reset(c Config) error {
	return locked(c, func() error { return wipe.All(durable.OS{}, c.State) })
}

// finishReset ends a reset that was interrupted. It comes before everything that
// reads or writes the state directory.
func finishReset(c Config) error {
	begun, err := wipe.Begun(durable.OS{}, c.State)
	if err != nil || !begun {
		return err
	}
	return locked(c, func() error { return wipe.Finish(durable.OS{}, c.State) })
}

// locked does something while no agent runs, nor can begin to.
func locked(c Config, do func() error) error {
	lock, err := durable.Lock(filepath.Join(c.State, "lock"))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil // there is no state directory
	case errors.Is(err, durable.ErrLocked):
		return &LocalError{"agent.running", "the agent runs here", "stop it, with 'systemctl stop dunlin-agent' where systemd started it, and run this again"}
	case err != nil:
		return err
	}
	defer lock.Close()
	return do()
}
