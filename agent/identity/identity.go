// Package identity is who the device is: its key, its certificate, what it
// trusts, and what time it may believe. The key is made on the device and never
// leaves it. Files survive the loss of everything else:
//
//	device.json   id, channel, addresses; written last: with it the device is enrolled
//	key.pem       ECDSA P-256, PKCS #8, then the certificate that the server's CA
//	              issued for it, CN = device id: one file, replaced by one rename
//	next.pem      the same for the pair that is being got; while it is there either
//	              may be the one that the server takes
//	ca.pem        the CA that the token's fingerprint named
//	signpost.json the CAs and addresses that the newest signpost named; it stands
//	              above ca.pem and the addresses of device.json
//	time-floor    seconds; trusted time is never before it
package identity

import (
	"crypto/ecdsa"
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

// Identity is an enrolled device's. It is safe for concurrent use.
type Identity struct {
	Device  string
	Channel string
	Server  string // https://host:port, as enrolled; see Way
	MQTT    string // host:port, as enrolled

	fsys durable.FS
	dir  string
	ca   *x509.Certificate // of ca.pem
	pairs
	bearings
	damage string
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
	fileNext   = "next.pem"
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
	id := &Identity{Device: r.Device, Channel: r.Channel, Server: r.Server, MQTT: r.MQTT, fsys: fsys, dir: dir}
	ca, err := durable.ReadFile(fsys, filepath.Join(dir, fileCA), maxFile)
	if err != nil {
		return nil, fmt.Errorf("read identity: %w", err)
	}
	if id.ca, err = certificate("CA certificate", ca); err != nil {
		return nil, fmt.Errorf("read identity: %w", err)
	}
	p, err := readPost(fsys, dir, id.Device)
	if err != nil { // as enrolled; the server tells the rest again
		id.damage = fmt.Sprintf("%s: %v", fileSignpost, err)
	}
	id.believe(p)
	usable := func(p *pair) error { return p.check(id.issuers, id.Device) }
	current, err := readPair(fsys, filepath.Join(dir, fileKey))
	if err == nil {
		err = usable(current)
	}
	if err != nil {
		return nil, fmt.Errorf("read identity: %s: %w", fileKey, err)
	}
	id.pairs.start(current, loadNext(fsys, dir, current, usable))
	return id, nil
}

// Damage says what was found damaged and how it is gone on without it, "": nothing.
func (id *Identity) Damage() string { return id.damage }

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

// makeKey returns the key that dir holds, or makes one: an enrolment that was
// interrupted goes on with the same key.
func makeKey(fsys durable.FS, dir string) (*ecdsa.PrivateKey, error) {
	p, err := readPair(fsys, filepath.Join(dir, fileKey))
	switch {
	case err == nil:
		return p.key, nil
	case !errors.Is(err, fs.ErrNotExist):
		return nil, err
	}
	if p, err = newPair(); err != nil {
		return nil, err
	}
	return p.key, p.write(fsys, "identity.key", filepath.Join(dir, fileKey))
}

func loadKey(fsys durable.FS, dir string) (*ecdsa.PrivateKey, error) {
	p, err := readPair(fsys, filepath.Join(dir, fileKey))
	if err != nil {
		return nil, err
	}
	return p.key, nil
}

// TLS is the client side of mutual TLS 1.3 to the server. Without a trusted clock
// the server's chain, name and CA are checked, its dates are not. Each handshake
// shows the pair whose turn it is.
func (id *Identity) TLS(serverName string, trusted func() bool) *tls.Config {
	c := id.checked(serverName, trusted)
	c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return id.show(), nil }
	verify := c.VerifyConnection
	c.VerifyConnection = func(s tls.ConnectionState) error {
		if err := verify(s); err != nil {
			return err
		}
		id.mu.Lock()
		defer id.mu.Unlock()
		id.server = s.PeerCertificates
		return nil
	}
	return c
}

// checked is TLS without a certificate of the device.
func (id *Identity) checked(serverName string, trusted func() bool) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13, ServerName: serverName,
		// The standard check cannot leave out dates; verifyServer does all the
		// rest of it, always.
		InsecureSkipVerify: true,
		VerifyConnection:   func(s tls.ConnectionState) error { return verifyServer(s, id.roots(), serverName, trusted()) },
	}
}
