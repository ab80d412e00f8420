package agent

import (
	"encoding/json"
	"errors"
	"path/filepath"

	"github.com/dunlin-edge/dunlin/agent/identity"
	"github.com/dunlin-edge/dunlin/agent/usb"
	"github.com/dunlin-edge/dunlin/shared/durable"
	"github.com/dunlin-edge/dunlin/shared/trust"
	"github.com/dunlin-edge/dunlin/shared/wire"
)

// EnrollByStick writes the request of a device without a network onto a stick. The
// answer comes back on it, and Import takes it in.
func EnrollByStick(c Config, text, name, path string) error {
	token, err := wire.ParseEnrolToken(text)
	if err != nil {
		return &LocalError{"token.malformed", err.Error(), "copy the whole line that 'dunlin device token' printed"}
	}
	if err := finishReset(c); err != nil {
		return err
	}
	fsys, dir := durable.OS{}, filepath.Join(c.State, "identity")
	if id, err := identity.Load(fsys, dir); err == nil {
		return &LocalError{"identity.exists", "this device is enrolled as " + id.Device, "dunlin-agent import " + path}
	}
	r, err := identity.Ask(fsys, dir, token, name, c.Facts())
	if err != nil {
		return err
	}
	b, err := json.Marshal(r)
	if err != nil {
		return err
	}
	return localStick(usb.WriteRequest(path, r.PublicKey, b))
}

// enrolFromStick takes in the answer to a request, when the device asked and is not
// enrolled yet. Roots come before the identity, so that a device that is enrolled
// always has them; killed in between, it is done again.
func enrolFromStick(c Config, path string) error {
	fsys, dir := durable.OS{}, filepath.Join(c.State, "identity")
	switch _, err := identity.Load(fsys, dir); {
	case err == nil:
		return identity.Forget(fsys, dir) // a power cut may have left it
	case !errors.Is(err, identity.ErrNotEnrolled):
		return nil // open says what is wrong
	}
	token, asked, err := identity.Asked(fsys, dir)
	if errors.Is(err, identity.ErrNotEnrolled) {
		return nil
	}
	if err != nil {
		return err
	}
	answer, err := usb.ReadAnswer(path, asked.PublicKey)
	if err != nil {
		return localStick(err)
	}
	reply, err := identity.Answered(fsys, dir, token, answer)
	if errors.Is(err, identity.ErrFingerprint) {
		return &LocalError{"identity.fingerprint", err.Error(), "do not use this stick; ask where it comes from"}
	}
	if err != nil {
		return &LocalError{"identity.answer", err.Error(), "bring the stick to the server again with 'dunlin usb import'"}
	}
	if err := trust.Install(fsys, filepath.Join(c.State, "trust"), reply.CatalogRoots, reply.DirectorRoots); err != nil {
		return err
	}
	if err := identity.Store(fsys, dir, token, reply); err != nil {
		return err
	}
	return identity.Forget(fsys, dir)
}

// localStick is an error of a stick as people at the device are told.
func localStick(err error) error {
	if err == nil {
		return nil
	}
	return outward(stickError(err))
}
