package modelsig

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
)

const maxDepth = 32

// decode reads one JSON value into v. It refuses what parsers read differently:
// keys that are the same but for their case, and deep nesting. Null is allowed,
// because others write it for what is not there.
func decode(b []byte, v any) error {
	d := json.NewDecoder(bytes.NewReader(b))
	d.UseNumber()
	if err := scan(d, 0); err != nil {
		return err
	}
	return json.Unmarshal(b, v)
}

func scan(d *json.Decoder, depth int) error {
	if depth > maxDepth {
		return fmt.Errorf("nested deeper than %d", maxDepth)
	}
	t, err := d.Token()
	if err != nil {
		return err
	}
	open, ok := t.(json.Delim)
	if !ok {
		return nil
	}
	seen := map[string]bool{}
	for d.More() {
		if open == '{' {
			if err := scanKey(d, seen); err != nil {
				return err
			}
		}
		if err := scan(d, depth+1); err != nil {
			return err
		}
	}
	_, err = d.Token()
	return err
}

func scanKey(d *json.Decoder, seen map[string]bool) error {
	t, err := d.Token()
	if err != nil {
		return err
	}
	key, _ := t.(string)                            // the decoder allows nothing else here
	folded := strings.ToLower(strings.ToUpper(key)) // as encoding/json compares them
	if seen[folded] {
		return fmt.Errorf("key %q twice", key)
	}
	seen[folded] = true
	return nil
}
