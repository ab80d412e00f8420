package identity

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"time"
)

// verifyServer checks chain, name and CA of a server. When dates is false the
// chain is judged at a time at which the server's certificate is valid, so that a
// device without a clock can still be sure whom it talks to.
func verifyServer(s tls.ConnectionState, roots *x509.CertPool, name string, dates bool) error {
	if len(s.PeerCertificates) == 0 {
		return errors.New("the server sent no certificate")
	}
	leaf := s.PeerCertificates[0]
	opts := x509.VerifyOptions{Roots: roots, DNSName: name, Intermediates: x509.NewCertPool(), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}
	for _, c := range s.PeerCertificates[1:] {
		opts.Intermediates.AddCert(c)
	}
	if !dates {
		opts.CurrentTime = middle(leaf)
	}
	if _, err := leaf.Verify(opts); err != nil {
		return fmt.Errorf("the server is not the one that the token named: %w", err)
	}
	return nil
}

// middle is a time at which the certificate is valid.
func middle(c *x509.Certificate) time.Time { return c.NotBefore.Add(c.NotAfter.Sub(c.NotBefore) / 2) }
