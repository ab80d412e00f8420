package enroll

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"time"
)

// Lifetimes of certificates.
const (
	CALife     = 20 * 365 * 24 * time.Hour
	ServerLife = 2 * 365 * 24 * time.Hour
	DeviceLife = 90 * 24 * time.Hour
	backdate   = time.Hour // for clocks that run a little late
)

// CA issues the certificates of one fleet.
type CA struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// NewCA makes a CA of its own.
func NewCA(name string, now time.Time) (*CA, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	serial, err := newSerial()
	if err != nil {
		return nil, err
	}
	t := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: fmt.Sprintf("Dunlin fleet CA of %s (%.8s)", name, serial.Text(16))},
		NotBefore: now.Add(-backdate), NotAfter: now.Add(CALife),
		// One below it: the CA after it, see Standing.Server.
		IsCA: true, BasicConstraintsValid: true, MaxPathLen: 1,
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, t, t, &key.PublicKey, key)
	if err != nil {
		return nil, fmt.Errorf("make CA: %w", err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	return &CA{cert, key}, nil
}

// LoadCA reads what Cert and Key returned.
func LoadCA(certPEM, keyPEM []byte) (*CA, error) {
	c, _ := pem.Decode(certPEM)
	k, _ := pem.Decode(keyPEM)
	if c == nil || k == nil {
		return nil, errors.New("load CA: no PEM block")
	}
	cert, err := x509.ParseCertificate(c.Bytes)
	if err != nil {
		return nil, fmt.Errorf("load CA: %w", err)
	}
	key, err := x509.ParsePKCS8PrivateKey(k.Bytes)
	if err != nil {
		return nil, fmt.Errorf("load CA: %w", err)
	}
	ec, ok := key.(*ecdsa.PrivateKey)
	if !ok || !ec.PublicKey.Equal(cert.PublicKey) {
		return nil, errors.New("load CA: key and certificate do not belong together")
	}
	return &CA{cert, ec}, nil
}

// Cert is the certificate in PEM.
func (c *CA) Cert() []byte { return certPEM(c.cert.Raw) }

// Key is the private key in PEM, PKCS #8.
func (c *CA) Key() ([]byte, error) { return keyPEM(c.key) }

// Pool holds the CA alone.
func (c *CA) Pool() *x509.CertPool {
	p := x509.NewCertPool()
	p.AddCert(c.cert)
	return p
}

// Fingerprint is the SHA-256 of the certificate's DER, as enrolment tokens carry it.
func (c *CA) Fingerprint() []byte {
	sum := sha256.Sum256(c.cert.Raw)
	return sum[:]
}

// Server issues a certificate for the server's names, in PEM with the CA behind
// it, so that a device that knows only the fingerprint can check the chain.
func (c *CA) Server(names []string, now time.Time) (chain, key []byte, err error) {
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	t := &x509.Certificate{
		Subject: pkix.Name{CommonName: names[0]}, NotBefore: now.Add(-backdate), NotAfter: now.Add(ServerLife),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	for _, n := range names {
		if ip := net.ParseIP(n); ip != nil {
			t.IPAddresses = append(t.IPAddresses, ip)
			continue
		}
		t.DNSNames = append(t.DNSNames, n)
	}
	der, err := c.issue(t, &k.PublicKey)
	if err != nil {
		return nil, nil, err
	}
	key, err = keyPEM(k)
	return append(certPEM(der), c.Cert()...), key, err
}

// Device issues a device's certificate for DeviceLife; CN is the device id.
func (c *CA) Device(id string, pub *ecdsa.PublicKey, now time.Time) (pemBytes []byte, serial string, err error) {
	return c.deviceFor(DeviceLife, id, pub, now)
}

func (c *CA) deviceFor(life time.Duration, id string, pub *ecdsa.PublicKey, now time.Time) (pemBytes []byte, serial string, err error) {
	t := &x509.Certificate{
		Subject: pkix.Name{CommonName: id}, NotBefore: now.Add(-min(backdate, life/10)), NotAfter: now.Add(life),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	der, err := c.issue(t, pub)
	if err != nil {
		return nil, "", err
	}
	return certPEM(der), t.SerialNumber.Text(16), nil
}

func (c *CA) issue(t *x509.Certificate, pub *ecdsa.PublicKey) ([]byte, error) {
	var err error
	if t.SerialNumber, err = newSerial(); err != nil {
		return nil, err
	}
	der, err := x509.CreateCertificate(rand.Reader, t, c.cert, pub, c.key)
	if err != nil {
		return nil, fmt.Errorf("issue certificate: %w", err)
	}
	return der, nil
}

func newSerial() (*big.Int, error) {
	return rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
}

func certPEM(der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

func keyPEM(k *ecdsa.PrivateKey) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil
}
