package tflite

import (
	"archive/zip"
	"bytes"
	"fmt"
	"io"
)

// Limits on the ZIP behind a model.
const (
	maxAppended     = 1 << 12 // files
	maxAppendedFile = 1 << 24 // bytes of one, unpacked
)

// appended lists the files of a ZIP behind the model; nil if there is none.
func appended(b []byte) []string {
	z := openAppended(b)
	if z == nil {
		return nil
	}
	var names []string
	for _, f := range z.File {
		names = append(names, f.Name)
	}
	return names
}

func openAppended(b []byte) *zip.Reader {
	z, err := zip.NewReader(bytes.NewReader(b), int64(len(b)))
	if err != nil || len(z.File) > maxAppended {
		return nil
	}
	return z
}

// ReadAppended returns a file of the ZIP behind a model: labels, mostly. At most
// 16 MiB are read; its checksum is checked.
func ReadAppended(b []byte, name string) ([]byte, error) {
	z := openAppended(b)
	if z == nil {
		return nil, fmt.Errorf("%w: no ZIP behind the model", ErrFormat)
	}
	for _, f := range z.File {
		if f.Name != name {
			continue
		}
		r, err := f.Open()
		if err != nil {
			return nil, fmt.Errorf("%w: %s: %w", ErrFormat, quote(name), err)
		}
		defer r.Close()
		text, err := io.ReadAll(io.LimitReader(r, maxAppendedFile+1))
		if err != nil {
			return nil, fmt.Errorf("%w: %s: %w", ErrFormat, quote(name), err)
		}
		if len(text) > maxAppendedFile {
			return nil, fmt.Errorf("%w: %s unpacks into more than %d bytes", ErrFormat, quote(name), maxAppendedFile)
		}
		return text, nil
	}
	return nil, fmt.Errorf("%w: no file %s behind the model", ErrFormat, quote(name))
}
