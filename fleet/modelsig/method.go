package modelsig

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha256"
	_ "crypto/sha512" // P-384 and P-521
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"slices"
	"time"
)

// maxChain bounds the certificates of a signature.
const maxChain = 16

// hashOf is the hash that the specification pairs with a curve; 0 for none.
func hashOf(c elliptic.Curve) crypto.Hash {
	switch c {
	case elliptic.P256():
		return crypto.SHA256
	case elliptic.P384():
		return crypto.SHA384
	case elliptic.P521():
		return crypto.SHA512
	}
	return 0
}

func digest(h crypto.Hash, b []byte) []byte {
	w := h.New()
	w.Write(b)
	return w.Sum(nil)
}

// hint names a public key as the reference tool does: the SHA-256 of its PEM.
func hint(k *ecdsa.PublicKey) (string, error) {
	p, err := publicPEM(k)
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(p)
	return hex.EncodeToString(sum[:]), nil
}

func publicPEM(k *ecdsa.PublicKey) ([]byte, error) {
	der, err := x509.MarshalPKIXPublicKey(k)
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}), nil
}

func (e *envelope) verifyKey(k *ecdsa.PublicKey) (string, error) {
	id, err := hint(k)
	if err != nil {
		return "", err
	}
	if h := e.Material.PublicKey.Hint; h != "" && h != id {
		return "", errIdentity("key %s signed, wanted is key %s", short(h), short(id))
	}
	return "key " + id, e.verifySignature(k)
}

func short(id string) string { return id[:min(len(id), 16)] }

func (e *envelope) verifySignature(k *ecdsa.PublicKey) error {
	h := hashOf(k.Curve)
	if h == 0 {
		return errUnsupported("keys on %s are not verified", k.Curve.Params().Name)
	}
	if !ecdsa.VerifyASN1(k, digest(h, e.DSSE.signed()), e.DSSE.Signatures[0].Sig) {
		return errSignature("the signature is not by the key that is wanted, or what it signs was altered")
	}
	return nil
}

// verifyCertificate wants a chain from the signer's certificate to one of roots,
// valid now: a signature of this method carries no proof of when it was made.
func (e *envelope) verifyCertificate(roots *x509.CertPool, now time.Time) (string, error) {
	list := e.Material.Chain.Certificates
	if len(list) == 0 || len(list) > maxChain {
		return "", errMalformed("it has %d certificates, wanted are 1 to %d", len(list), maxChain)
	}
	var certs []*x509.Certificate
	between := x509.NewCertPool()
	for i, c := range list {
		cert, err := x509.ParseCertificate(c.RawBytes)
		if err != nil {
			return "", errMalformed("certificate %d: %v", i+1, err)
		}
		certs = append(certs, cert)
		if i > 0 {
			between.AddCert(cert)
		}
	}
	leaf := certs[0]
	_, err := leaf.Verify(x509.VerifyOptions{Roots: roots, Intermediates: between, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}})
	var invalid x509.CertificateInvalidError
	if errors.As(err, &invalid) && invalid.Reason == x509.Expired {
		return "", refuse(CodeExpired, "have the model signed again, or check this machine's clock", "the signer's certificate: %v", err)
	}
	if err != nil {
		return "", errIdentity("the signer's certificate: %v", err)
	}
	if !maySign(leaf) {
		return "", errIdentity("the certificate of %s is not for signing", leaf.Subject)
	}
	k, ok := leaf.PublicKey.(*ecdsa.PublicKey)
	if !ok {
		return "", errUnsupported("the certificate's key is %s, not ECDSA", leaf.PublicKeyAlgorithm)
	}
	return "certificate " + leaf.Subject.String(), e.verifySignature(k)
}

// maySign asks of a certificate what the reference tool asks: that it is for
// digital signatures or for code signing.
func maySign(c *x509.Certificate) bool {
	return c.KeyUsage&x509.KeyUsageDigitalSignature != 0 || slices.Contains(c.ExtKeyUsage, x509.ExtKeyUsageCodeSigning)
}
