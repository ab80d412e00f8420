package modelsig

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"slices"
	"strings"

	"github.com/sigstore/sigstore/pkg/cryptoutils"
)

// Signer signs models, by a key alone or with certificates for it.
type Signer struct {
	public *ecdsa.PublicKey
	sign   func(message []byte) ([]byte, error) // ASN.1
	chain  []certificate
}

// NewKey makes a P-256 key: private is encrypted under the passphrase, public is
// for those who verify. Both are PEM.
func NewKey(pass cryptoutils.PassFunc) (private, public []byte, err error) {
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	der, err := cryptoutils.MarshalPrivateKeyToEncryptedDER(k, pass)
	if err != nil {
		return nil, nil, fmt.Errorf("encrypt key: %w", err)
	}
	public, err = publicPEM(&k.PublicKey)
	return cryptoutils.PEMEncode(cryptoutils.EncryptedSigstorePrivateKeyPEMType, der), public, err
}

// NewSigner reads a private key, as NewKey made it or another tool (PKCS #8 or
// SEC 1, encrypted or not). The passphrase is asked for only if it is needed.
func NewSigner(key []byte, pass cryptoutils.PassFunc) (*Signer, error) {
	var asked error
	private, err := cryptoutils.UnmarshalPEMToPrivateKey(key, func(confirm bool) ([]byte, error) {
		p, err := pass(confirm)
		asked = err
		return p, err
	})
	if asked != nil {
		return nil, asked
	}
	if err != nil {
		return nil, refuse(CodeKey, "name a private key in PEM and give its passphrase", "the key to sign with: %v", err)
	}
	k, ok := private.(*ecdsa.PrivateKey)
	if !ok || hashOf(k.Curve) == 0 {
		return nil, refuse(CodeKey, "make one with 'dunlin keys model-signing'", "the key to sign with is not ECDSA on P-256, P-384 or P-521")
	}
	return local(k), nil
}

func local(k *ecdsa.PrivateKey) *Signer {
	h := hashOf(k.Curve)
	return &Signer{public: &k.PublicKey, sign: func(m []byte) ([]byte, error) { return k.Sign(nil, digest(h, m), h) }}
}

// NewRemoteSigner signs with a key on P-256 that somebody else holds; sign returns
// its ECDSA signature of a message, over SHA-256.
func NewRemoteSigner(public crypto.PublicKey, sign func(message []byte) ([]byte, error)) (*Signer, error) {
	k, ok := public.(*ecdsa.PublicKey)
	if !ok || k.Curve != elliptic.P256() {
		return nil, refuse(CodeKey, "use a key of type ECDSA on P-256", "the key to sign with is of type %T, not ECDSA on P-256", public)
	}
	return &Signer{public: k, sign: sign}, nil
}

// Certify adds the signer's certificate and those between it and its authority,
// in this order; signatures then have the method certificate.
func (s *Signer) Certify(certificates []byte) error {
	next := "name a PEM file with the certificate of this key first"
	for block, rest := pem.Decode(certificates); block != nil; block, rest = pem.Decode(rest) {
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil || block.Type != "CERTIFICATE" {
			return refuse(CodeKey, next, "certificate %d cannot be read: %v", len(s.chain)+1, err)
		}
		if len(s.chain) == 0 && !s.public.Equal(c.PublicKey) {
			return refuse(CodeKey, next, "the certificate of %s is not of the key to sign with", c.Subject)
		}
		s.chain = append(s.chain, certificate{c.Raw})
	}
	if len(s.chain) == 0 || len(s.chain) > maxChain {
		return refuse(CodeKey, next, "the file holds %d certificates, wanted are 1 to %d", len(s.chain), maxChain)
	}
	return nil
}

// Sign signs a model's files. Equal files and key give equal bytes, unless somebody
// else holds the key: the signature is RFC 6979's, which needs no random number.
func (s *Signer) Sign(model string, files []File) ([]byte, error) {
	payload, err := json.Marshal(newStatement(model, files))
	if err != nil {
		return nil, err
	}
	e := envelope{MediaType: bundleV03, DSSE: &dsse{Payload: payload, PayloadType: payloadType}}
	e.Material.Log = json.RawMessage("[]")
	if s.chain != nil {
		e.Material.Chain = &chain{s.chain}
	} else {
		id, err := hint(s.public)
		if err != nil {
			return nil, err
		}
		e.Material.PublicKey = &publicKey{Hint: id}
	}
	sig, err := s.sign(e.DSSE.signed())
	if err != nil {
		return nil, fmt.Errorf("sign model: %w", err)
	}
	e.DSSE.Signatures = []signature{{Sig: sig}}
	return json.Marshal(e)
}

func newStatement(model string, files []File) statement {
	files = slices.SortedFunc(slices.Values(files), func(a, b File) int { return strings.Compare(a.Name, b.Name) })
	p := &predicate{Serialization: &serialization{Method: methodFiles, HashType: hashSHA256, IgnorePaths: append([]string{Name}, neverSigned...)}}
	sum := sha256.New()
	for _, f := range files {
		sum.Write(f.Digest[:])
		p.Resources = append(p.Resources, resource{f.Name, hex.EncodeToString(f.Digest[:]), hashSHA256})
	}
	return statement{
		Type: statementType, PredicateType: predicateType, Predicate: p,
		Subject: []subject{{model, map[string]string{hashSHA256: hex.EncodeToString(sum.Sum(nil))}}},
	}
}
