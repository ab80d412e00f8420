// Package identity is who the device is: its key, its certificate, what it
// trusts, and what time it may believe. The key is made on the device and never
// leaves it. Files survive the loss of everything else:
//
//	device.json   id, channel, addresses; written last: with it the device is enrolled
//	key.pem       ECDSA P-256, PKCS #8
//	cert.pem      issued by the server's CA, CN = device id
//	ca.pem        the CA that the token's fingerprint named
//	time-floor    seconds; trusted time is never before it
package identity

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	"github.com/dunlin-edge/dunlin/shared/durable"
	"github.com/dunlin-edge/dunlin/shared/wire"
)

// ErrNotEnrolled is returned by Load where there is no identity.
var ErrNotEnrolled = errors.New("this device is not enrolled")

// Identity is an enrolled device's.
type Identity struct {
	Device  string
	Channel string
	Server  string // https://host:port
	MQTT    string // host:port
	Key     *ecdsa.PrivateKey
	cert    tls.Certificate
	ca      *x509.CertPool
}

// record is device.json.
type record struct {
	Number  int    `json:"number"` // of this format
	Device  string `json:"device"`
	Channel string `json:"channel"`
	Server  string `json:"server"`
	MQTT    string `json:"mqtt"`
}

const (
	recordNumber = 1
	maxFile      = 64 << 10

	fileRecord = "device.json"
	fileKey    = "key.pem"
	fileCert   = "cert.pem"
	fileCA     = "ca.pem"
)

// Load reads the identity in dir.
func Load(fsys durable.FS, dir string) (*Identity, error) {
	b, err := durable.ReadFile(fsys, filepath.Join(dir, fileRecord), maxFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, ErrNotEnrolled
	}
	if err != nil {
		return nil, fmt.Errorf("read identity: %w", err)
	}
	var r record
	if err := json.Unmarshal(b, &r); err != nil {
		return nil, fmt.Errorf("read identity: %w", err)
	}
	if r.Number != recordNumber || !wire.ValidDevice(r.Device) {
		return nil, fmt.Errorf("read identity: format %d of device %q is not understood", r.Number, r.Device)
	}
	id := &Identity{Device: r.Device, Channel: r.Channel, Server: r.Server, MQTT: r.MQTT}
	if id.Key, err = loadKey(fsys, dir); err != nil {
		return nil, fmt.Errorf("read identity: %w", err)
	}
	cert, err := durable.ReadFile(fsys, filepath.Join(dir, fileCert), maxFile)
	if err != nil {
		return nil, fmt.Errorf("read identity: %w", err)
	}
	ca, err := durable.ReadFile(fsys, filepath.Join(dir, fileCA), maxFile)
	if err != nil {
		return nil, fmt.Errorf("read identity: %w", err)
	}
	authority, err := certificate("CA certificate", ca)
	if err != nil {
		return nil, fmt.Errorf("read identity: %w", err)
	}
	if id.cert, err = pair(cert, authority, id.Key, id.Device); err != nil {
		return nil, fmt.Errorf("read identity: %w", err)
	}
	id.ca = x509.NewCertPool()
	id.ca.AddCert(authority)
	return id, nil
}

// certificate reads the first certificate of a file.
func certificate(what string, file []byte) (*x509.Certificate, error) {
	block, _ := pem.Decode(file)
	if block == nil {
		return nil, fmt.Errorf("the %s is damaged", what)
	}
	c, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("the %s is damaged: %w", what, err)
	}
	return c, nil
}

// pair joins a certificate with the key and the device that it must be for. The
// files of two identities never make one.
func pair(certPEM []byte, ca *x509.Certificate, key *ecdsa.PrivateKey, device string) (tls.Certificate, error) {
	leaf, err := certificate("device certificate", certPEM)
	if err != nil {
		return tls.Certificate{}, err
	}
	pub, ok := leaf.PublicKey.(*ecdsa.PublicKey)
	if !ok || !pub.Equal(&key.PublicKey) {
		return tls.Certificate{}, errors.New("the device certificate is for another key")
	}
	if leaf.Subject.CommonName != device {
		return tls.Certificate{}, fmt.Errorf("the device certificate is for device %q, not %q", leaf.Subject.CommonName, device)
	}
	if err := leaf.CheckSignatureFrom(ca); err != nil {
		return tls.Certificate{}, fmt.Errorf("the device certificate is of another CA: %w", err)
	}
	return tls.Certificate{Certificate: [][]byte{leaf.Raw}, PrivateKey: key, Leaf: leaf}, nil
}

func loadKey(fsys durable.FS, dir string) (*ecdsa.PrivateKey, error) {
	b, err := durable.ReadFile(fsys, filepath.Join(dir, fileKey), maxFile)
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(b)
	if block == nil {
		return nil, errors.New("the device key is damaged")
	}
	k, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("device key: %w", err)
	}
	key, ok := k.(*ecdsa.PrivateKey)
	if !ok || key.Curve != elliptic.P256() {
		return nil, errors.New("the device key is not ECDSA P-256")
	}
	return key, nil
}

// makeKey returns the key that dir holds, or makes one: an enrolment that was
// interrupted goes on with the same key.
func makeKey(fsys durable.FS, dir string) (*ecdsa.PrivateKey, error) {
	key, err := loadKey(fsys, dir)
	if !errors.Is(err, fs.ErrNotExist) {
		return key, err
	}
	if key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		return nil, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	block := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
	return key, durable.WriteFile(fsys, "identity.key", filepath.Join(dir, fileKey), block, 0o600)
}

// TLS is the client side of mutual TLS 1.3 to the server. Without a trusted clock
// the server's chain, name and CA are checked, its dates are not.
func (id *Identity) TLS(serverName string, trusted func() bool) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{id.cert}, ServerName: serverName,
		// The standard check cannot leave out dates; verifyServer does all the
		// rest of it, always.
		InsecureSkipVerify: true,
		VerifyConnection:   func(s tls.ConnectionState) error { return verifyServer(s, id.ca, serverName, trusted()) },
	}
}
