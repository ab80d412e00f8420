package trust

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
)

// known are the keys of TUF. Go's JSON takes "VERSION" for "version", so a key
// that differs from one of these in case only is refused.
var known = map[string]bool{
	"signed": true, "signatures": true, "keyid": true, "sig": true, "_type": true, "spec_version": true, "version": true,
	"expires": true, "consistent_snapshot": true, "keys": true, "roles": true, "keyids": true, "threshold": true,
	"keytype": true, "scheme": true, "keyval": true, "public": true, "meta": true, "length": true, "hashes": true,
	"sha256": true, "targets": true, "custom": true, "delegations": true, "name": true, "paths": true, "terminating": true,
	"path_hash_prefixes": true, "succinct_roles": true,
}

const maxDepth = 24

// Strict is how a device looks at metadata before it parses it: duplicate keys,
// null, keys of the wrong case, more than one value and deep nesting are refused.
// It allocates in proportion to the input. Who takes metadata in for devices looks
// in the same way: what they would refuse would stop a whole channel.
func Strict(b []byte) error {
	d := json.NewDecoder(bytes.NewReader(b))
	d.UseNumber()
	if err := value(d, 0); err != nil {
		return err
	}
	if _, err := d.Token(); err != io.EOF {
		return errors.New("there is more than one JSON value")
	}
	return nil
}

func value(d *json.Decoder, depth int) error {
	if depth > maxDepth {
		return fmt.Errorf("JSON nested deeper than %d", maxDepth)
	}
	t, err := d.Token()
	if err != nil {
		return err
	}
	switch t {
	case nil:
		return errors.New("JSON null")
	case json.Delim('['):
		for d.More() {
			if err := value(d, depth+1); err != nil {
				return err
			}
		}
		_, err = d.Token()
	case json.Delim('{'):
		err = object(d, depth)
	}
	return err
}

func object(d *json.Decoder, depth int) error {
	seen := map[string]bool{}
	for d.More() {
		t, err := d.Token()
		if err != nil {
			return err
		}
		key, ok := t.(string)
		if !ok {
			return errors.New("JSON object without a key")
		}
		if seen[key] {
			return fmt.Errorf("JSON key %q twice", key)
		}
		seen[key] = true
		if l := strings.ToLower(strings.ToUpper(key)); l != key && known[l] { // as encoding/json compares them
			return fmt.Errorf("JSON key %q, %q is meant", key, l)
		}
		if err := value(d, depth+1); err != nil {
			return err
		}
	}
	_, err := d.Token()
	return err
}
