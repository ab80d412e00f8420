package bundle

import (
	"crypto/sha256"
	"encoding/hex"
	"hash"
	"io"
	"strings"
)

const digestPrefix = "sha256:"

// DigestOf returns the digest of b, "sha256:" and 64 hex digits.
func DigestOf(b []byte) string {
	s := sha256.Sum256(b)
	return digestPrefix + hex.EncodeToString(s[:])
}

// ValidDigest says whether s is a SHA-256 digest in its one spelling.
func ValidDigest(s string) bool {
	h, ok := strings.CutPrefix(s, digestPrefix)
	if !ok || len(h) != 2*sha256.Size || strings.ToLower(h) != h {
		return false
	}
	_, err := hex.DecodeString(h)
	return err == nil
}

// verifyReader passes a blob on and ends in an error instead of io.EOF if the
// blob was not what its descriptor says.
type verifyReader struct {
	r    io.Reader
	d    Descriptor
	h    hash.Hash
	left int64
}

// VerifyReader returns a reader of r that fails with blob.size or blob.digest,
// at the end at the latest, unless r holds exactly what d describes.
func VerifyReader(r io.Reader, d Descriptor) io.Reader {
	return &verifyReader{r: r, d: d, h: sha256.New(), left: d.Size}
}

func (v *verifyReader) Read(p []byte) (int, error) {
	n, err := v.r.Read(p)
	v.h.Write(p[:n])
	if v.left -= int64(n); v.left < 0 {
		return 0, refuse(CodeBlobSize, "blob %s is longer than its %d bytes", v.d.Digest, v.d.Size)
	}
	if err != io.EOF {
		return n, err
	}
	if v.left > 0 {
		return n, refuse(CodeBlobSize, "blob %s is %d bytes short of its %d", v.d.Digest, v.left, v.d.Size)
	}
	if got := digestPrefix + hex.EncodeToString(v.h.Sum(nil)); got != v.d.Digest {
		return n, refuse(CodeBlobDigest, "blob %s holds other bytes, of digest %s", v.d.Digest, got)
	}
	return n, io.EOF
}
