package identity

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"path/filepath"

	"github.com/dunlin-edge/dunlin/shared/durable"
	"github.com/dunlin-edge/dunlin/shared/wire"
)

// ErrFingerprint is wrapped when what the server sent is not what the token
// names: another server answers, or the token was changed.
var ErrFingerprint = errors.New("it does not have the fingerprint that the token names")

// Enrol gets an identity with the token and stores it in dir, the key first and
// device.json last: killed in between, it is asked again with the same key. The
// reply carries the roots that the device is to trust; their first versions have
// the fingerprints that the token names.
func Enrol(ctx context.Context, fsys durable.FS, dir string, token *wire.EnrolToken, name string, facts map[string]string) (*wire.EnrolReply, error) {
	if err := durable.MkdirAll(fsys, "identity.dir", dir, 0o700); err != nil {
		return nil, fmt.Errorf("enrol: %w", err)
	}
	if err := durable.Sweep(fsys, "identity.sweep", dir); err != nil {
		return nil, fmt.Errorf("enrol: %w", err)
	}
	key, err := makeKey(fsys, dir)
	if err != nil {
		return nil, fmt.Errorf("enrol: %w", err)
	}
	reply, err := request(ctx, token, key, name, facts)
	if err != nil {
		return nil, fmt.Errorf("enrol: %w", err)
	}
	if err := judge(reply, token, key); err != nil {
		return nil, fmt.Errorf("enrol: %w", err)
	}
	return reply, nil
}

// Store makes the reply of Enrol the device's identity. The caller stores the
// roots before, so that a device that is enrolled always has them.
func Store(fsys durable.FS, dir string, token *wire.EnrolToken, reply *wire.EnrolReply) error {
	rec, err := json.Marshal(record{Number: recordNumber, Device: reply.Device, Channel: reply.Channel, Server: token.Server, MQTT: reply.MQTT})
	if err != nil {
		return err
	}
	key, err := loadKey(fsys, dir)
	if err != nil {
		return fmt.Errorf("store identity: %w", err)
	}
	p, err := joined(key, reply.Certificate)
	if err != nil {
		return fmt.Errorf("store identity: %w", err)
	}
	// What was being got or told for an identity before this one is none of it.
	for _, stale := range []string{fileNext, fileSignpost} {
		if err := durable.Remove(fsys, "identity.stale", filepath.Join(dir, stale)); err != nil {
			return fmt.Errorf("store identity: %w", err)
		}
	}
	if err := p.write(fsys, "identity.cert", filepath.Join(dir, fileKey)); err != nil {
		return fmt.Errorf("store identity: %w", err)
	}
	if err := durable.WriteFile(fsys, "identity.ca", filepath.Join(dir, fileCA), reply.CA, 0o600); err != nil {
		return fmt.Errorf("store identity: %w", err)
	}
	if err := durable.WriteFile(fsys, "identity.record", filepath.Join(dir, fileRecord), rec, 0o600); err != nil {
		return fmt.Errorf("store identity: %w", err)
	}
	return nil
}

// Fingerprint names the key in dir for people: SHA-256 of its SPKI, hex. Empty: there
// is none that can be read.
func Fingerprint(fsys durable.FS, dir string) string {
	key, err := loadKey(fsys, dir)
	if err != nil {
		return ""
	}
	spki, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	if err != nil {
		return ""
	}
	sum := sha256.Sum256(spki)
	return hex.EncodeToString(sum[:])
}

func request(ctx context.Context, token *wire.EnrolToken, key *ecdsa.PrivateKey, name string, facts map[string]string) (*wire.EnrolReply, error) {
	u, err := url.Parse(token.Server)
	if err != nil {
		return nil, err
	}
	signed, err := signRequest(token, key, name, facts)
	if err != nil {
		return nil, err
	}
	body, err := json.Marshal(signed)
	if err != nil {
		return nil, err
	}
	var reply wire.EnrolReply
	if err := send(ctx, pinned(token.CA, u.Hostname()), token.Server+"/v1/enrol", body, &reply); err != nil {
		return nil, err
	}
	return &reply, nil
}

// signRequest proves that the device holds the key that it asks to be known by.
func signRequest(token *wire.EnrolToken, key *ecdsa.PrivateKey, name string, facts map[string]string) (*wire.EnrolRequest, error) {
	spki, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(wire.EnrolProof(token.ID, spki))
	sig, err := ecdsa.SignASN1(rand.Reader, key, sum[:])
	return &wire.EnrolRequest{Token: token.ID, Secret: token.Secret, Device: name, PublicKey: spki, Signature: sig, Facts: facts, CA: token.CA}, err
}

// pinned accepts a server whose chain ends in the CA of that fingerprint, which
// it sends along. Dates are not looked at: the clock may be anything.
func pinned(fingerprint []byte, name string) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13, ServerName: name, InsecureSkipVerify: true,
		VerifyConnection: func(s tls.ConnectionState) error {
			for _, c := range s.PeerCertificates {
				if sum := sha256.Sum256(c.Raw); c.IsCA && bytes.Equal(sum[:], fingerprint) {
					pool := x509.NewCertPool()
					pool.AddCert(c)
					return verifyServer(s, pool, name, false)
				}
			}
			return fmt.Errorf("the server's CA: %w", ErrFingerprint)
		},
	}
}

// judge compares everything that the device will trust with the token.
func judge(r *wire.EnrolReply, t *wire.EnrolToken, key *ecdsa.PrivateKey) error {
	if !wire.ValidDevice(r.Device) || r.MQTT == "" {
		return fmt.Errorf("the server's answer names device %q at %q", r.Device, r.MQTT)
	}
	if r.Channel != t.Channel {
		return fmt.Errorf("channel %q: the token is for %q", r.Channel, t.Channel)
	}
	ca, err := certificate("CA certificate", r.CA)
	if err != nil {
		return fmt.Errorf("the server's answer: %w", err)
	}
	if sum := sha256.Sum256(ca.Raw); !bytes.Equal(sum[:], t.CA) {
		return fmt.Errorf("the CA certificate: %w", ErrFingerprint)
	}
	for _, x := range []struct {
		what  string
		roots [][]byte
		want  []byte
	}{{"the catalog's root", r.CatalogRoots, t.CatalogRoot}, {"the director's root", r.DirectorRoots, t.DirectorRoot}} {
		if len(x.roots) == 0 {
			return fmt.Errorf("%s is missing in the server's answer", x.what)
		}
		if sum := sha256.Sum256(x.roots[0]); !bytes.Equal(sum[:], x.want) {
			return fmt.Errorf("%s: %w", x.what, ErrFingerprint)
		}
	}
	p, err := joined(key, r.Certificate)
	if err == nil {
		err = p.check([]*x509.Certificate{ca}, r.Device)
	}
	if err != nil {
		return fmt.Errorf("the server's answer: %w", err)
	}
	return nil
}
