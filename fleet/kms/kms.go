// Package kms signs with keys that this program never holds: in a hardware token, a
// cloud's key service, a vault. It speaks the plug-in protocol v1 of sigstore with
// the program sigstore-kms-NAME on PATH: a call is a process, the request is its
// argument in JSON, the message its input, the answer its output.
//
// Sigstore's own client of that protocol trusts its plug-ins; this one does not. A
// plug-in gets so much time and may say so much, and what it signed is verified
// under the key that it showed before anybody uses it.
package kms

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"fmt"
	"io"
	"regexp"
	"strings"
	"time"

	"github.com/sigstore/sigstore/pkg/cryptoutils"
	"github.com/sigstore/sigstore/pkg/signature"
	"github.com/sigstore/sigstore/pkg/signature/kms/cliplugin/common"

	"github.com/dunlin-edge/dunlin/fleet"
)

// Prefix of the names of plug-ins' programs.
const Prefix = "sigstore-kms-"

// Codes of refusals.
const (
	CodeReference = "kms.reference" // the reference of the key is not understood
	CodeAbsent    = "kms.absent"    // there is no such plug-in
	CodeTimeout   = "kms.timeout"   // it did not answer in time
	CodeAnswer    = "kms.answer"    // what it answered is too long or not understood
	CodeRefused   = "kms.refused"   // it says why it does not sign
	CodeKey       = "kms.key"       // its key is of a type that devices do not know
	CodeSignature = "kms.signature" // what it signed does not verify under its key
)

// Timeout is what one call may take: long enough to find a token and touch it.
const Timeout = 2 * time.Minute

// Limits of what is read of a plug-in and of its reference, in bytes.
const (
	maxAnswer    = 64 << 10
	maxComplaint = 16 << 10
	maxReference = 1024
	maxMessage   = 8 << 20
)

// Config says how plug-ins are run.
type Config struct {
	Timeout time.Duration // of one call; 0: Timeout
	Stderr  io.Writer     // what a plug-in tells people, bounded; nil: nowhere
}

// Signer is a key that a plug-in holds. It implements sigstore's signature.Signer.
type Signer struct {
	ref     string
	program string
	id      string // the plug-in's own name of the key
	conf    Config
	public  crypto.PublicKey
	verify  signature.Verifier
}

// IsReference tells whether text names a key of a plug-in, like NAME://KEY.
func IsReference(text string) bool { return strings.Contains(text, "://") }

// A name without dots and slashes leads to no file but one on PATH.
var referenceForm = regexp.MustCompile(`^([a-z0-9][a-z0-9-]{0,63})://([\x21-\x7e]+)$`)

// Open asks the plug-in of a reference for the key's public half: Ed25519 or ECDSA
// on P-256, which devices know.
func Open(ctx context.Context, ref string, conf Config) (*Signer, error) {
	m := referenceForm.FindStringSubmatch(ref)
	if m == nil || len(ref) > maxReference {
		return nil, refuse(CodeReference, "write it like NAME://KEY, with the program "+Prefix+"NAME on PATH", "the reference %.80q of a key is not understood", ref)
	}
	s := &Signer{ref: ref, program: Prefix + m[1], id: m[2], conf: conf}
	resp, err := s.call(ctx, nil, &common.MethodArgs{MethodName: common.PublicKeyMethodName, PublicKey: &common.PublicKeyArgs{PublicKeyOptions: &common.PublicKeyOptions{}}})
	if err != nil {
		return nil, err
	}
	if resp.PublicKey == nil {
		return nil, s.wrong("it shows no public key")
	}
	if s.public, err = cryptoutils.UnmarshalPEMToPublicKey(resp.PublicKey.PublicKeyPEM); err != nil {
		return nil, s.wrong("its public key: %v", err)
	}
	switch k := s.public.(type) {
	case ed25519.PublicKey:
		s.verify, err = signature.LoadED25519Verifier(k)
	case *ecdsa.PublicKey:
		if k.Curve != elliptic.P256() {
			return nil, s.unknown("ECDSA on " + k.Params().Name)
		}
		s.verify, err = signature.LoadECDSAVerifier(k, hash)
	default:
		return nil, s.unknown(fmt.Sprintf("%T", k))
	}
	return s, err
}

func (s *Signer) unknown(what string) error {
	return refuse(CodeKey, "make one of type Ed25519 or ECDSA on P-256 there", "%s is a key of type %s, which devices do not know", s.ref, what)
}

// hash is what ECDSA keys sign.
const hash = crypto.SHA256

// Reference is what the signer was opened by.
func (s *Signer) Reference() string { return s.ref }

// PublicKey implements signature.Signer.
func (s *Signer) PublicKey(...signature.PublicKeyOption) (crypto.PublicKey, error) {
	return s.public, nil
}

// SignMessage implements signature.Signer. Options are for other signers.
func (s *Signer) SignMessage(message io.Reader, _ ...signature.SignOption) ([]byte, error) {
	return s.Sign(context.Background(), message)
}

// Sign has the plug-in sign a message and verifies the signature.
func (s *Signer) Sign(ctx context.Context, message io.Reader) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(message, maxMessage+1))
	if err != nil {
		return nil, err
	}
	if len(b) > maxMessage {
		return nil, fmt.Errorf("sign with %s: a message of more than %d bytes", s.ref, maxMessage)
	}
	resp, err := s.call(ctx, b, &common.MethodArgs{MethodName: common.SignMessageMethodName, SignMessage: &common.SignMessageArgs{SignOptions: &common.SignOptions{}}})
	if err != nil {
		return nil, err
	}
	if resp.SignMessage == nil || len(resp.SignMessage.Signature) == 0 {
		return nil, s.wrong("it gives no signature")
	}
	sig := resp.SignMessage.Signature
	if err := s.verify.VerifySignature(bytes.NewReader(sig), bytes.NewReader(b)); err != nil {
		return nil, refuse(CodeSignature, "do not use it; look at the plug-in and at the key that the reference names", "what %s signed with %s does not verify under the key that it showed: %v", s.program, s.ref, err)
	}
	return sig, nil
}

func (s *Signer) wrong(format string, args ...any) error {
	return refuse(CodeAnswer, "look at the plug-in "+s.program, "the answer of %s is not understood: %s", s.program, fmt.Sprintf(format, args...))
}

func refuse(code, next, format string, args ...any) *fleet.Error {
	return &fleet.Error{Code: code, Message: fmt.Sprintf(format, args...), Next: next}
}
