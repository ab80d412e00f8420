package bundle

import (
	"errors"
	"fmt"
)

// Error is a refusal. Code is for programs ("manifest.path"), Message for people.
type Error struct {
	Code    string
	Message string
}

// Error implements error.
func (e *Error) Error() string { return e.Message }

// Codes of refusals.
const (
	CodeContractMalformed = "contract.malformed" // not JSON, unknown or duplicate keys, null
	CodeContractTooLarge  = "contract.too_large"
	CodeContractNumber    = "contract.number"  // a format number that this version does not read
	CodeContractInvalid   = "contract.invalid" // a value out of its range
	CodeContractMissing   = "contract.missing" // the manifest holds none, or names a file that it lacks
	CodeManifestMalformed = "manifest.malformed"
	CodeManifestTooLarge  = "manifest.too_large"
	CodeManifestKind      = "manifest.kind"      // not a ModelPack manifest
	CodeManifestPath      = "manifest.path"      // a path that leaves the bundle or is not plain
	CodeManifestDuplicate = "manifest.duplicate" // two files of one path
	CodeManifestDigest    = "manifest.digest"    // not a SHA-256 digest
	CodeManifestSize      = "manifest.size"      // negative, or beyond the limits
	CodeLayoutMalformed   = "layout.malformed"
	CodeBlobMissing       = "blob.missing"
	CodeBlobSize          = "blob.size"
	CodeBlobDigest        = "blob.digest"
	CodeArrayMalformed    = "array.malformed" // .npy or .npz
	CodeGoldenInvalid     = "golden.invalid"  // arrays that do not fit the contract
	CodeModelMalformed    = "model.malformed" // not a .tflite file
	CodeModelCheck        = "model.check"     // found by the static check
	CodeModelMismatch     = "model.mismatch"  // the file is not what the contract says
	CodeSelectorMalformed = "selector.malformed"
)

// Code returns the code of err, or "" if it is no refusal of this package.
func Code(err error) string {
	var e *Error
	if errors.As(err, &e) {
		return e.Code
	}
	return ""
}

func refuse(code, format string, args ...any) *Error {
	return &Error{code, fmt.Sprintf(format, args...)}
}
