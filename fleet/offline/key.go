package offline

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/sigstore/sigstore/pkg/cryptoutils"
	"github.com/sigstore/sigstore/pkg/signature"
	"github.com/theupdateframework/go-tuf/v2/metadata"

	"github.com/dunlin-edge/dunlin/fleet/kms"
)

// Passphrase hands out the passphrase of the key that a person holds; confirm is
// true when it is a new one, to be typed twice.
type Passphrase = cryptoutils.PassFunc

// Key is an offline signing key: decrypted, or in the hands of a plug-in.
type Key struct {
	ID string // as TUF computes it
	// Public is the 32 bytes of an Ed25519 key, or the SPKI in DER of an ECDSA key
	// on P-256.
	Public []byte
	signer signature.Signer
}

// maxKeyFile bounds what is read of a key file, in bytes.
const maxKeyFile = 64 << 10

// OwnKey is the public half of the key at a place: a new one if that is a file,
// which must not exist yet; the plug-in's if it is a reference.
func OwnKey(where string, pass Passphrase) ([]byte, error) {
	if !kms.IsReference(where) {
		return newKey(where, pass)
	}
	k, err := loadPlugin(where)
	if err != nil {
		return nil, err
	}
	return k.Public, nil
}

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

// FreshKey makes an Ed25519 key that is nowhere but in memory: for rehearsals.
func FreshKey() (*Key, error) {
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	signer, err := signature.LoadED25519Signer(private)
	if err != nil {
		return nil, err
	}
	return keyOf(signer)
}

// LoadKey reads and decrypts a key file, or asks a plug-in for the key of a
// reference like NAME://KEY; what the plug-in says to people goes to standard
// error.
func LoadKey(where string, pass Passphrase) (*Key, error) {
	if kms.IsReference(where) {
		return loadPlugin(where)
	}
	b, err := ReadBounded(where, maxKeyFile)
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
		return nil, refuse("key.locked", "try again with the passphrase of this key", "%s cannot be opened: %v", where, err)
	}
	k, ok := private.(ed25519.PrivateKey)
	if !ok {
		return nil, refuse("key.type", "use a key that 'dunlin keys init' made", "%s holds no Ed25519 key", where)
	}
	signer, err := signature.LoadED25519Signer(k)
	if err != nil {
		return nil, err
	}
	return keyOf(signer)
}

func loadPlugin(ref string) (*Key, error) {
	signer, err := kms.Open(context.Background(), ref, kms.Config{Stderr: os.Stderr})
	if err != nil {
		return nil, err
	}
	return keyOf(signer)
}

func keyOf(s signature.Signer) (*Key, error) {
	public, err := s.PublicKey()
	if err != nil {
		return nil, err
	}
	k := &Key{signer: s}
	if e, ok := public.(ed25519.PublicKey); ok {
		k.Public = e
	} else if k.Public, err = x509.MarshalPKIXPublicKey(public); err != nil {
		return nil, err
	}
	_, k.ID, err = TUFKey(k.Public)
	return k, err
}

// TUFKey is a public key, in the form of Key.Public, as metadata lists it, and its
// id.
func TUFKey(public []byte) (*metadata.Key, string, error) {
	var key crypto.PublicKey = ed25519.PublicKey(public)
	if len(public) != ed25519.PublicKeySize {
		parsed, err := x509.ParsePKIXPublicKey(public)
		if err != nil {
			return nil, "", refuse("key.malformed", "take the file as 'dunlin keys init' wrote it", "a public key of %d bytes is not understood: %v", len(public), err)
		}
		e, ok := parsed.(*ecdsa.PublicKey)
		if !ok || e.Curve != elliptic.P256() {
			return nil, "", refuse("key.type", "use a key of type Ed25519 or ECDSA on P-256", "a public key is of type %T, which devices do not know", parsed)
		}
		key = e
	}
	k, err := metadata.KeyFromPublicKey(key)
	if err != nil {
		return nil, "", err
	}
	id, err := k.ID()
	return k, id, err
}
