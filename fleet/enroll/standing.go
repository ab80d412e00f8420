package enroll

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/dunlin-edge/dunlin/shared/wire"
)

// Standing is what the server is known by. It does not change; another takes its
// place.
type Standing struct {
	CAs       []*CA          // the first issues, certificates of all are accepted
	Addresses []wire.Address // the first is to be used
}

// LoadCAs reads the CAs of a file of certificates, each with its key out of a file
// of keys in any order. Keys without a certificate are passed over: a change of
// both files was interrupted.
func LoadCAs(certs, keys []byte) ([]*CA, error) {
	var ks []*ecdsa.PrivateKey
	for block, rest := pem.Decode(keys); block != nil; block, rest = pem.Decode(rest) {
		k, err := x509.ParsePKCS8PrivateKey(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("load CA: %w", err)
		}
		if ec, ok := k.(*ecdsa.PrivateKey); ok {
			ks = append(ks, ec)
		}
	}
	var out []*CA
	for block, rest := pem.Decode(certs); block != nil; block, rest = pem.Decode(rest) {
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("load CA: %w", err)
		}
		i := slices.IndexFunc(ks, func(k *ecdsa.PrivateKey) bool { return k.PublicKey.Equal(c.PublicKey) })
		if i < 0 {
			return nil, errors.New("load CA: key and certificate do not belong together")
		}
		out = append(out, &CA{c, ks[i]})
	}
	if len(out) == 0 || len(out) > wire.MaxCAs {
		return nil, fmt.Errorf("load CA: 1 to %d certificates wanted, not %d", wire.MaxCAs, len(out))
	}
	return out, nil
}

// Certs are the certificates of CAs in PEM.
func Certs(cas []*CA) []byte {
	var out []byte
	for _, c := range cas {
		out = append(out, c.Cert()...)
	}
	return out
}

// Keys are their keys in PEM.
func Keys(cas []*CA) ([]byte, error) {
	var out []byte
	for _, c := range cas {
		k, err := c.Key()
		if err != nil {
			return nil, err
		}
		out = append(out, k...)
	}
	return out, nil
}

// Name is the fingerprint as people see it, hex.
func (c *CA) Name() string { return hex.EncodeToString(c.Fingerprint()) }

// Made and Expires are the CA's validity.
func (c *CA) Made() time.Time { return c.cert.NotBefore.Add(backdate) }

// Expires is when the CA's certificate ends.
func (c *CA) Expires() time.Time { return c.cert.NotAfter }

// Pool holds every CA.
func (s *Standing) Pool() *x509.CertPool {
	p := x509.NewCertPool()
	for _, c := range s.CAs {
		p.AddCert(c.cert)
	}
	return p
}

// by finds a CA by its fingerprint, nil: there is none.
func (s *Standing) by(fingerprint []byte) *CA {
	i := slices.IndexFunc(s.CAs, func(c *CA) bool { return bytes.Equal(c.Fingerprint(), fingerprint) })
	if i < 0 {
		return nil
	}
	return s.CAs[i]
}

// Has tells whether a CA is one of these.
func (s *Standing) Has(c *CA) bool { return s.by(c.Fingerprint()) != nil }

// Of is the CA that has issued a certificate, nil: none of these.
func (s *Standing) Of(c *x509.Certificate) *CA {
	i := slices.IndexFunc(s.CAs, func(ca *CA) bool {
		return bytes.Equal(c.AuthorityKeyId, ca.cert.SubjectKeyId) && c.CheckSignatureFrom(ca.cert) == nil
	})
	if i < 0 {
		return nil
	}
	return s.CAs[i]
}

// of is Of for a certificate in PEM.
func (s *Standing) of(text []byte) *CA {
	block, _ := pem.Decode(text)
	if block == nil {
		return nil
	}
	c, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil
	}
	return s.Of(c)
}

// Server issues a certificate for the server's names. Behind it come the CAs, and
// for each that does not issue a bridge: the issuing CA's key signed by it. So a
// device that knows only a former CA still knows the server.
func (s *Standing) Server(names []string, now time.Time) (tls.Certificate, error) {
	chain, key, err := s.CAs[0].Server(names, now)
	if err != nil {
		return tls.Certificate{}, err
	}
	for _, former := range s.CAs[1:] {
		if former.Bridges() {
			bridge, err := former.bridge(s.CAs[0], now)
			if err != nil {
				return tls.Certificate{}, err
			}
			chain = append(chain, certPEM(bridge)...)
		}
		chain = append(chain, former.Cert()...)
	}
	return tls.X509KeyPair(chain, key)
}

// Bridges tells whether the CA can vouch for another one.
func (c *CA) Bridges() bool { return c.cert.MaxPathLen != 0 }

// bridge is a certificate of another CA's key under this one.
func (c *CA) bridge(to *CA, now time.Time) ([]byte, error) {
	serial, err := newSerial()
	if err != nil {
		return nil, err
	}
	end := to.cert.NotAfter
	if c.cert.NotAfter.Before(end) {
		end = c.cert.NotAfter
	}
	t := &x509.Certificate{
		SerialNumber: serial, Subject: to.cert.Subject, SubjectKeyId: to.cert.SubjectKeyId, NotBefore: now.Add(-backdate), NotAfter: end,
		IsCA: true, BasicConstraintsValid: true, MaxPathLenZero: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, t, c.cert, &to.key.PublicKey, c.key)
	if err != nil {
		return nil, fmt.Errorf("vouch for the CA: %w", err)
	}
	return der, nil
}

// Covers tells whether a server's certificate is of the issuing CA, has these
// names, is not past half of its life, and no other CA needs a bridge.
func (s *Standing) Covers(c *x509.Certificate, names []string, now time.Time) bool {
	if c == nil || len(s.CAs) > 1 || s.Of(c) != s.CAs[0] || c.NotAfter.Sub(now) < ServerLife/2 {
		return false
	}
	return !slices.ContainsFunc(names, func(n string) bool { return c.VerifyHostname(n) != nil })
}
