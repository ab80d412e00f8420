package usb

import (
	"crypto/sha256"
	"encoding/hex"
	"path/filepath"

	"github.com/dunlin-edge/dunlin/shared/durable"
	"github.com/dunlin-edge/dunlin/shared/wire"
)

// A device that is not enrolled asks by stick and is answered by stick. Both files
// go by the hash of its public key, for it has no name yet.

func enrolName(publicKey []byte) string {
	sum := sha256.Sum256(publicKey)
	return hex.EncodeToString(sum[:])
}

// WriteRequest puts a request to enrol onto the stick in a folder, which may be
// empty.
func WriteRequest(path string, publicKey, request []byte) error {
	return writeRequest(folder{path: path}, wire.LockboxDir, publicKey, request)
}

func writeRequest(fsys durable.FS, root string, publicKey, request []byte) error {
	dir := filepath.Join(root, wire.LockboxRequests)
	err := durable.MkdirAll(fsys, "usb.requests", dir, 0o755)
	if err == nil {
		err = durable.Sweep(fsys, "usb.sweep", dir)
	}
	if err == nil {
		err = durable.WriteFile(fsys, "usb.request", filepath.Join(dir, enrolName(publicKey)), request, 0o644)
	}
	return writing(err)
}

// maxAnswer is how long an answer may be: roots are in it.
const maxAnswer = 4 << 20

// ReadAnswer reads what the server answered; CodeNotOurs when it did not.
func ReadAnswer(path string, publicKey []byte) ([]byte, error) {
	b, err := durable.ReadFile(folder{path: path}, filepath.Join(wire.LockboxDir, wire.LockboxAnswers, enrolName(publicKey)), maxAnswer)
	if err != nil {
		return nil, &Error{CodeNotOurs, err}
	}
	return b, nil
}
