package modelsig

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"slices"
	"strings"
	"testing"
	"time"
)

// authority is a certificate with its key.
type authority struct {
	cert *x509.Certificate
	key  crypto.Signer
}

// issue makes a certificate for a key; change may spoil it. An empty authority
// signs itself.
func (a authority) issue(t testing.TB, name string, key crypto.Signer, change func(*x509.Certificate)) authority {
	t.Helper()
	c := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name},
		NotBefore: now.Add(-time.Hour), NotAfter: now.Add(time.Hour), BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageCodeSigning},
	}
	if change != nil {
		change(c)
	}
	if a.cert == nil {
		a = authority{c, key}
	}
	der, err := x509.CreateCertificate(rand.Reader, c, a.cert, key.Public(), a.key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return authority{cert, key}
}

func isCA(c *x509.Certificate) {
	c.IsCA, c.KeyUsage, c.ExtKeyUsage = true, x509.KeyUsageCertSign, nil
}

func ecKey(t testing.TB, curve elliptic.Curve) *ecdsa.PrivateKey {
	t.Helper()
	k, err := ecdsa.GenerateKey(curve, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func pemOf(list ...authority) []byte {
	var b []byte
	for _, a := range list {
		b = append(b, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.cert.Raw})...)
	}
	return b
}

func TestCertificates(t *testing.T) {
	root := authority{}.issue(t, "root", ecKey(t, elliptic.P256()), isCA)
	other := authority{}.issue(t, "other", ecKey(t, elliptic.P256()), isCA)
	between := root.issue(t, "between", ecKey(t, elliptic.P256()), isCA)
	late := root.issue(t, "late", ecKey(t, elliptic.P256()), func(c *x509.Certificate) { isCA(c); c.NotAfter = now.Add(-time.Minute) })
	pool := x509.NewCertPool()
	pool.AddCert(root.cert)
	for _, c := range []struct {
		name   string
		issuer authority
		curve  elliptic.Curve
		change func(*x509.Certificate)
		chain  []authority
		want   string
	}{
		{name: "by the root", issuer: root},
		{name: "through another", issuer: between, chain: []authority{between}},
		{name: "P-384", issuer: root, curve: elliptic.P384()},
		{name: "P-521", issuer: root, curve: elliptic.P521()},
		{name: "P-224", issuer: root, curve: elliptic.P224(), want: CodeUnsupported},
		{name: "chain cut", issuer: between, want: CodeIdentity},
		{name: "other authority", issuer: other, want: CodeIdentity},
		{name: "other authority brings itself", issuer: other, chain: []authority{other}, want: CodeIdentity},
		{name: "vouches for itself", want: CodeIdentity},
		{name: "expired", issuer: root, change: func(c *x509.Certificate) { c.NotAfter = now.Add(-time.Minute) }, want: CodeExpired},
		{name: "not yet valid", issuer: root, change: func(c *x509.Certificate) { c.NotBefore = now.Add(time.Minute) }, want: CodeExpired},
		{name: "authority expired", issuer: late, chain: []authority{late}, want: CodeExpired},
		{name: "for servers", issuer: root, change: func(c *x509.Certificate) {
			c.KeyUsage, c.ExtKeyUsage = x509.KeyUsageKeyAgreement, []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
		}, want: CodeIdentity},
		{name: "issued by a signer", issuer: root.issue(t, "signer", ecKey(t, elliptic.P256()), nil), want: CodeIdentity},
		{name: "too long a chain", issuer: root, chain: slices.Repeat([]authority{between}, maxChain), want: CodeKey},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.curve == nil {
				c.curve = elliptic.P256()
			}
			k := ecKey(t, c.curve)
			leaf := c.issuer.issue(t, "signer", k, c.change)
			s := local(k)
			if err := s.Certify(pemOf(append([]authority{leaf}, c.chain...)...)); err != nil {
				if code(err) != c.want {
					t.Fatal(err)
				}
				return
			}
			if hashOf(c.curve) == 0 { // no signer of ours takes it: the verifier must refuse it alone
				s.sign = local(ecKey(t, elliptic.P256())).sign
			}
			st, err := Verify(sign(t, s, content), &Policy{Roots: pool}, now)
			if code(err) != c.want {
				t.Fatalf("%v, wanted %q", err, c.want)
			}
			if err == nil && (st.Method != MethodCertificate || !strings.Contains(st.Signer, "CN=signer")) {
				t.Errorf("statement %+v", st)
			}
		})
	}
}

func TestCertificateOfAnotherKey(t *testing.T) {
	root := authority{}.issue(t, "root", ecKey(t, elliptic.P256()), isCA)
	pool := x509.NewCertPool()
	pool.AddCert(root.cert)
	mine := root.issue(t, "mine", ecKey(t, elliptic.P256()), nil)
	s, _ := newSigner(t)
	if err := s.Certify(pemOf(mine)); code(err) != CodeKey {
		t.Errorf("a certificate of another key was taken: %v", err)
	}
	s.chain = []certificate{{mine.cert.Raw}}
	if _, err := Verify(sign(t, s, content), &Policy{Roots: pool}, now); code(err) != CodeSignature {
		t.Error(err)
	}
	k, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	s.chain = []certificate{{root.issue(t, "rsa", k, nil).cert.Raw}}
	if _, err := Verify(sign(t, s, content), &Policy{Roots: pool}, now); code(err) != CodeUnsupported {
		t.Error(err)
	}
}
