package bundle

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strings"
)

// decodeStrict is json.Unmarshal without its generosity: it refuses duplicate
// keys, null, anything behind the value and, if known is set, keys that v does
// not have or that differ from its own in case.
func decodeStrict(b []byte, v any, known bool) error {
	if err := scan(b, known); err != nil {
		return err
	}
	d := json.NewDecoder(bytes.NewReader(b))
	if known {
		d.DisallowUnknownFields()
	}
	return d.Decode(v)
}

// freeKeys are the objects of a contract whose keys are names of people's own,
// not of ours.
const freeKeys = "tolerance"

// scan walks the tokens of one JSON value.
func scan(b []byte, lower bool) error {
	d := json.NewDecoder(bytes.NewReader(b))
	if err := scanValue(d, "", lower, 0); err != nil {
		return err
	}
	if _, err := d.Token(); err != io.EOF {
		return fmt.Errorf("there is something behind the value")
	}
	return nil
}

func scanValue(d *json.Decoder, at string, lower bool, depth int) error {
	if depth > 32 {
		return fmt.Errorf("nested deeper than 32")
	}
	t, err := d.Token()
	if err != nil {
		return err
	}
	switch t {
	case nil:
		return fmt.Errorf("null at %q", at)
	case json.Delim('['):
		for d.More() {
			if err := scanValue(d, at, lower, depth+1); err != nil {
				return err
			}
		}
		_, err = d.Token()
	case json.Delim('{'):
		err = scanObject(d, at, lower, depth)
	}
	return err
}

func scanObject(d *json.Decoder, at string, lower bool, depth int) error {
	seen := map[string]bool{}
	for d.More() {
		t, err := d.Token()
		if err != nil {
			return err
		}
		key, ok := t.(string)
		if !ok {
			return fmt.Errorf("%v where a key belongs", t)
		}
		if seen[key] {
			return fmt.Errorf("key %q twice", key)
		}
		seen[key] = true
		if lower && at != freeKeys && strings.ToLower(key) != key {
			return fmt.Errorf("unknown key %q", key)
		}
		if err := scanValue(d, key, lower, depth+1); err != nil {
			return err
		}
	}
	_, err := d.Token()
	return err
}

// StrictJSON refuses what parsers read differently: duplicate keys, null, more
// than one value, deep nesting. Others who take in signed JSON look with it first.
func StrictJSON(b []byte) error { return scan(b, false) }
