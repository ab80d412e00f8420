package publish

import (
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/sigstore/sigstore/pkg/cryptoutils"
	"github.com/sigstore/sigstore/pkg/signature"
	"github.com/theupdateframework/go-tuf/v2/metadata"
)

// Passphrase hands out the passphrase of the key that a person holds; confirm is
// true when it is a new one, to be typed twice.
type Passphrase = cryptoutils.PassFunc

// Key is an offline signing key, decrypted.
type Key struct {
	ID     string // as TUF computes it
	Public ed25519.PublicKey
	signer signature.Signer
}

// maxKeyFile bounds what is read of a key file, in bytes.
const maxKeyFile = 64 << 10

// newKey makes an Ed25519 key and writes it, encrypted, into a file that must not
// exist yet.
func newKey(path string, pass Passphrase) (ed25519.PublicKey, error) {
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	der, err := cryptoutils.MarshalPrivateKeyToEncryptedDER(private, pass)
	if err != nil {
		return nil, fmt.Errorf("encrypt key: %w", err)
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return nil, refuse("key.exists", "choose another --holder, or move the file away if it was never used", "%s exists already", path)
	}
	if err != nil {
		return nil, err
	}
	_, err = f.Write(cryptoutils.PEMEncode(cryptoutils.EncryptedSigstorePrivateKeyPEMType, der))
	return public, errors.Join(err, f.Sync(), f.Close())
}

// LoadKey reads and decrypts a key file.
func LoadKey(path string, pass Passphrase) (*Key, error) {
	b, err := readBounded(path, maxKeyFile)
	if err != nil {
		return nil, refuse("key.unknown", "name the file that 'dunlin keys init' made", "%v", err)
	}
	var asked error
	private, err := cryptoutils.UnmarshalPEMToPrivateKey(b, func(confirm bool) ([]byte, error) {
		p, err := pass(confirm)
		asked = err
		return p, err
	})
	if asked != nil {
		return nil, asked
	}
	if err != nil {
		return nil, refuse("key.locked", "try again with the passphrase of this key", "%s cannot be opened: %v", path, err)
	}
	k, ok := private.(ed25519.PrivateKey)
	if !ok {
		return nil, refuse("key.type", "use a key that 'dunlin keys init' made", "%s holds no Ed25519 key", path)
	}
	signer, err := signature.LoadED25519Signer(k)
	if err != nil {
		return nil, err
	}
	public := k.Public().(ed25519.PublicKey)
	_, id, err := tufKey(public)
	return &Key{ID: id, Public: public, signer: signer}, err
}

// tufKey is a public key as metadata lists it, and its id.
func tufKey(public ed25519.PublicKey) (*metadata.Key, string, error) {
	if len(public) != ed25519.PublicKeySize {
		return nil, "", refuse("key.malformed", "take the file as 'dunlin keys init' wrote it", "a public key has %d bytes, not %d", len(public), ed25519.PublicKeySize)
	}
	k, err := metadata.KeyFromPublicKey(public)
	if err != nil {
		return nil, "", err
	}
	id, err := k.ID()
	return k, id, err
}
