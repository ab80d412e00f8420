package modelsig

import (
	"fmt"

	"github.com/dunlin-edge/dunlin/fleet"
)

// Codes of refusals.
const (
	CodeMissing     = "modelsig.missing"     // no signature is there
	CodeMalformed   = "modelsig.malformed"   // not a model signature, or larger than is read
	CodeUnsupported = "modelsig.unsupported" // a hash, key type or layout that is not verified here
	CodeSignature   = "modelsig.signature"   // the signature does not fit its key, or its log does not vouch for it
	CodeIdentity    = "modelsig.identity"    // somebody else signed
	CodeExpired     = "modelsig.expired"     // a certificate is not valid at this time
	CodeDigest      = "modelsig.digest"      // a file is not what was signed
	CodeFile        = "modelsig.file"        // a file was added, removed or renamed
	CodePolicy      = "modelsig.policy"      // what is wanted is not understood
	CodeKey         = "modelsig.key"         // the key to sign with cannot be used
)

func refuse(code, next, format string, args ...any) *fleet.Error {
	return &fleet.Error{Code: code, Message: fmt.Sprintf(format, args...), Next: next}
}

func errMissing(format string, args ...any) *fleet.Error {
	return refuse(CodeMissing, "ask whoever made the model for its "+Name+", or drop the requirement", format, args...)
}

func errMalformed(format string, args ...any) *fleet.Error {
	return refuse(CodeMalformed, "fetch the signature again, or have the model signed anew", "the signature: "+format, args...)
}

func errUnsupported(format string, args ...any) *fleet.Error {
	return refuse(CodeUnsupported, "have the model signed with SHA-256 over whole files, by an ECDSA key", "the signature: "+format, args...)
}

func errSignature(format string, args ...any) *fleet.Error {
	return refuse(CodeSignature, "do not use the model; find out who changed it", format, args...)
}

func errIdentity(format string, args ...any) *fleet.Error {
	return refuse(CodeIdentity, "do not use the model unless you know why; then require that signer", format, args...)
}

func errPolicy(format string, args ...any) *fleet.Error {
	return refuse(CodePolicy, "write key=FILE, or cert=FILE, or identity=SUBJECT,issuer=URL,root=FILE", format, args...)
}
