package identity

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	"github.com/dunlin-edge/dunlin/shared/durable"
	"github.com/dunlin-edge/dunlin/shared/wire"
)

// fileToken remembers what an answer that somebody carries must be judged by; it
// goes when the device is enrolled.
const fileToken = "token"

// Ask is the first half of Enrol for a device without a network: it makes the key,
// remembers the token and returns the request that somebody carries to the server.
// Asked again it returns a request of the same key.
func Ask(fsys durable.FS, dir string, token *wire.EnrolToken, name string, facts map[string]string) (*wire.EnrolRequest, error) {
	if err := durable.MkdirAll(fsys, "identity.dir", dir, 0o700); err != nil {
		return nil, fmt.Errorf("ask to enrol: %w", err)
	}
	if err := durable.Sweep(fsys, "identity.sweep", dir); err != nil {
		return nil, fmt.Errorf("ask to enrol: %w", err)
	}
	key, err := makeKey(fsys, dir)
	if err != nil {
		return nil, fmt.Errorf("ask to enrol: %w", err)
	}
	if err := durable.WriteFile(fsys, "identity.token", filepath.Join(dir, fileToken), []byte(token.String()), 0o600); err != nil {
		return nil, fmt.Errorf("ask to enrol: %w", err)
	}
	r, err := signRequest(token, key, name, facts)
	if err != nil {
		return nil, fmt.Errorf("ask to enrol: %w", err)
	}
	return r, nil
}

// Asked returns the request that Ask returned last, ErrNotEnrolled when there was
// none; it is what the answer's name comes from.
func Asked(fsys durable.FS, dir string) (*wire.EnrolToken, *wire.EnrolRequest, error) {
	b, err := durable.ReadFile(fsys, filepath.Join(dir, fileToken), maxFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil, ErrNotEnrolled
	}
	if err != nil {
		return nil, nil, fmt.Errorf("read the enrolment token: %w", err)
	}
	token, err := wire.ParseEnrolToken(string(b))
	if err != nil {
		return nil, nil, fmt.Errorf("read the enrolment token: %w", err)
	}
	key, err := loadKey(fsys, dir)
	if err != nil {
		return nil, nil, fmt.Errorf("read the device key: %w", err)
	}
	r, err := signRequest(token, key, "", nil)
	return token, r, err
}

// Answered is the second half of Enrol: it reads the server's answer and compares
// everything that the device will trust with the token. Store makes it the
// identity.
func Answered(fsys durable.FS, dir string, token *wire.EnrolToken, answer []byte) (*wire.EnrolReply, error) {
	if len(answer) > maxReply {
		return nil, fmt.Errorf("the answer has more than %d bytes", maxReply)
	}
	key, err := loadKey(fsys, dir)
	if err != nil {
		return nil, fmt.Errorf("read the device key: %w", err)
	}
	reply := &wire.EnrolReply{}
	d := json.NewDecoder(bytes.NewReader(answer))
	if err := d.Decode(reply); err != nil {
		return nil, fmt.Errorf("read the server's answer: %w", err)
	}
	if err := judge(reply, token, key); err != nil {
		return nil, fmt.Errorf("the server's answer: %w", err)
	}
	return reply, nil
}

// Forget drops what Ask remembered.
func Forget(fsys durable.FS, dir string) error {
	return durable.Remove(fsys, "identity.token", filepath.Join(dir, fileToken))
}
