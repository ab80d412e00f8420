package modelsig

import (
	"crypto/ecdsa"
	"crypto/x509"
	"encoding/pem"
	"path/filepath"
	"strings"
)

// maxTrust bounds a file with keys, certificates or a trusted root, in bytes.
const maxTrust = 1 << 20

// Policy says whose signature is wanted: exactly one of the three is set.
type Policy struct {
	Key      *ecdsa.PublicKey
	Roots    *x509.CertPool // a certificate that one of these vouches for, whomever it names
	Identity *Identity
}

func (p *Policy) method() string {
	switch {
	case p.Key != nil:
		return MethodKey
	case p.Roots != nil:
		return MethodCertificate
	default:
		return MethodSigstore
	}
}

// Requirement is a policy as people write it, with names of files.
type Requirement struct {
	Key      string `yaml:"key"`      // public key, PEM
	Cert     string `yaml:"cert"`     // certificates of authorities, PEM
	Identity string `yaml:"identity"` // subject
	Issuer   string `yaml:"issuer"`   // of the identity
	Root     string `yaml:"root"`     // trusted_root.json
}

// ParseRequirement reads key=FILE, or cert=FILE, or
// identity=SUBJECT,issuer=URL,root=FILE; "" is no requirement.
func ParseRequirement(text string) (Requirement, error) {
	var r Requirement
	if text == "" {
		return r, nil
	}
	to := map[string]*string{"key": &r.Key, "cert": &r.Cert, "identity": &r.Identity, "issuer": &r.Issuer, "root": &r.Root}
	for part := range strings.SplitSeq(text, ",") {
		word, value, _ := strings.Cut(part, "=")
		if to[word] == nil || *to[word] != "" || value == "" {
			return r, errPolicy("%q is not understood in %q", part, text)
		}
		*to[word] = value
	}
	return r, r.check()
}

// Empty says that no signature is required.
func (r Requirement) Empty() bool { return r == Requirement{} }

func (r Requirement) check() error {
	sigstore := r.Identity != "" && r.Issuer != "" && r.Root != ""
	switch r {
	case Requirement{Key: r.Key}, Requirement{Cert: r.Cert}:
		return nil
	case Requirement{Identity: r.Identity, Issuer: r.Issuer, Root: r.Root}:
		if sigstore {
			return nil
		}
	}
	return errPolicy("one of a key, certificates, or an identity with its issuer and trusted root is wanted")
}

// Path is the file that it names, a relative one from dir.
func (r Requirement) Path(dir string) string {
	path := r.Key + r.Cert + r.Root // one of them
	if filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(dir, path)
}

// Load reads the files that it names, relative ones from dir; nil if nothing is
// required.
func (r Requirement) Load(dir string) (*Policy, error) {
	if r.Empty() {
		return nil, nil
	}
	if err := r.check(); err != nil {
		return nil, err
	}
	b, err := readFile(r.Path(dir), maxTrust)
	if err != nil {
		return nil, errPolicy("%v", err)
	}
	p := &Policy{}
	switch {
	case r.Key != "":
		p.Key, err = parsePublicKey(b)
	case r.Cert != "":
		p.Roots = x509.NewCertPool()
		if !p.Roots.AppendCertsFromPEM(b) {
			err = errPolicy("%s holds no certificate", r.Path(dir))
		}
	default:
		p.Identity, err = NewIdentity(r.Identity, r.Issuer, b)
	}
	return p, err
}

func parsePublicKey(b []byte) (*ecdsa.PublicKey, error) {
	block, _ := pem.Decode(b)
	if block == nil || block.Type != "PUBLIC KEY" {
		return nil, errPolicy("the key file holds no public key in PEM")
	}
	k, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		return nil, errPolicy("the public key: %v", err)
	}
	ec, ok := k.(*ecdsa.PublicKey)
	if !ok || hashOf(ec.Curve) == 0 {
		return nil, errPolicy("the public key is not ECDSA on P-256, P-384 or P-521")
	}
	return ec, nil
}
