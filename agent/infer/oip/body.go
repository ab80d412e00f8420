package oip

import (
	"bytes"
	"compress/gzip"
	"compress/zlib"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
)

// maxBodies bounds the bodies that are here at a time, in bytes.
const maxBodies = 2 * maxBody

// body reads a request's body of at most limit bytes, unpacked, which it may be
// longer than nobody needs. What says that it is longer is refused before it is
// read. done gives its room back.
func (f *front) body(w http.ResponseWriter, r *http.Request, limit int64) (b []byte, done func(), err error) {
	tooLong := &refused{http.StatusRequestEntityTooLarge, fmt.Sprintf("the body is longer than the %d bytes that this model's inputs need at most", limit)}
	room := limit
	packed := r.Header.Get("Content-Encoding")
	if packed == "" && r.ContentLength >= 0 {
		room = r.ContentLength
	}
	if r.ContentLength > limit {
		return nil, nil, tooLong
	}
	if !f.bodies.TryAcquire(room) {
		return nil, nil, &refused{http.StatusServiceUnavailable, "requests of too many bytes are being read: ask again later"}
	}
	if packed == "" && r.ContentLength >= 0 {
		b, err = exactly(r.Body, r.ContentLength)
	} else {
		b, err = unpack(http.MaxBytesReader(w, r.Body, limit), packed, limit+1)
	}
	var limited *http.MaxBytesError
	if errors.As(err, &limited) || int64(len(b)) > limit {
		err = tooLong
	}
	if err != nil {
		f.bodies.Release(room)
		return nil, nil, err
	}
	return b, func() { f.bodies.Release(room) }, nil
}

// exactly reads a body whose length is known, without room to spare.
func exactly(from io.Reader, n int64) ([]byte, error) {
	b := make([]byte, n)
	if _, err := io.ReadFull(from, b); err != nil {
		return nil, &refused{http.StatusBadRequest, "read the body: " + err.Error()}
	}
	return b, nil
}

// unpack reads at most limit unpacked bytes.
func unpack(from io.Reader, packed string, limit int64) (b []byte, err error) {
	switch packed {
	case "", "identity":
	case "gzip":
		from, err = gzip.NewReader(from)
	case "deflate":
		from, err = zlib.NewReader(from)
	default:
		return nil, &refused{http.StatusUnsupportedMediaType, fmt.Sprintf("content encoding %.20q; gzip, deflate or none is read", packed)}
	}
	if err == nil {
		b, err = io.ReadAll(io.LimitReader(from, limit))
	}
	var limited *http.MaxBytesError
	if err != nil && !errors.As(err, &limited) {
		err = &refused{http.StatusBadRequest, "read the body: " + err.Error()}
	}
	return b, err
}

// read parses a body: JSON, and when the header of that name gives the JSON's
// length, the binary data of the inputs that announce some, in their order.
func read(b []byte, length string) (*request, error) {
	var tail []byte
	if length != "" {
		n, err := strconv.ParseUint(length, 10, 31)
		if err != nil || n > uint64(len(b)) {
			return nil, fmt.Errorf("%s is %.20q; the length of the JSON in a body of %d bytes is wanted", headerLength, length, len(b))
		}
		b, tail = b[:n], b[n:]
	}
	r, err := parse(b)
	if err != nil {
		return nil, err
	}
	for i := range r.inputs {
		in := &r.inputs[i]
		switch {
		case in.size < 0:
			continue
		case in.data != nil || in.memory != nil:
			return nil, fmt.Errorf("input %q: data, binary_data_size and a shared memory region: one of them is wanted", in.name)
		case in.size > int64(len(tail)):
			return nil, fmt.Errorf("input %q: binary_data_size is %d, but %d bytes follow the JSON; %s says where it ends", in.name, in.size, len(tail), headerLength)
		}
		in.raw, tail = tail[:in.size:in.size], tail[in.size:]
	}
	if len(tail) > 0 {
		return nil, fmt.Errorf("%d bytes follow what the inputs announce", len(tail))
	}
	return r, nil
}

// minPacked is the least answer that is worth the time to pack it.
const minPacked = 4 << 10

// compressed writes a body of several parts, packed when the client takes that.
func compressed(w http.ResponseWriter, r *http.Request, parts ...[]byte) {
	size := 0
	for _, b := range parts {
		size += len(b)
	}
	if size >= minPacked {
		accepted := strings.Split(strings.ReplaceAll(r.Header.Get("Accept-Encoding"), " ", ""), ",")
		var packed bytes.Buffer
		var to io.WriteCloser
		switch {
		case slices.Contains(accepted, "gzip"):
			w.Header().Set("Content-Encoding", "gzip")
			to, _ = gzip.NewWriterLevel(&packed, gzip.BestSpeed) // the level is valid
		case slices.Contains(accepted, "deflate"):
			w.Header().Set("Content-Encoding", "deflate")
			to, _ = zlib.NewWriterLevel(&packed, zlib.BestSpeed)
		}
		if to != nil {
			for _, b := range parts {
				to.Write(b) // a buffer takes everything
			}
			to.Close()
			parts, size = [][]byte{packed.Bytes()}, packed.Len()
		}
	}
	w.Header().Set("Content-Length", strconv.Itoa(size))
	w.WriteHeader(http.StatusOK)
	for _, b := range parts {
		w.Write(b)
	}
}
