package catalog

import (
	"encoding/json"
	"fmt"
	"strings"

	"github.com/dunlin-edge/dunlin/shared/bundle"
)

// tufKeys are the keys of TUF. Go's JSON takes "VERSION" for "version", so a
// device refuses a key that differs from one of these in case only, wherever it
// stands.
var tufKeys = map[string]bool{
	"signed": true, "signatures": true, "keyid": true, "sig": true, "_type": true, "spec_version": true, "version": true,
	"expires": true, "consistent_snapshot": true, "keys": true, "roles": true, "keyids": true, "threshold": true,
	"keytype": true, "scheme": true, "keyval": true, "public": true, "meta": true, "length": true, "hashes": true,
	"sha256": true, "targets": true, "custom": true, "delegations": true, "name": true, "paths": true, "terminating": true,
	"path_hash_prefixes": true, "succinct_roles": true,
}

// maxDepth is how deep a device follows nested JSON.
const maxDepth = 24

// strict is how a device looks at metadata before it parses: what it would refuse
// must not be taken in, or the whole channel would stand still.
func strict(b []byte) error {
	if err := bundle.StrictJSON(b); err != nil {
		return err
	}
	var v any
	if err := json.Unmarshal(b, &v); err != nil {
		return err
	}
	return strictValue(v, 0)
}

func strictValue(v any, depth int) error {
	if depth > maxDepth {
		return fmt.Errorf("nested deeper than %d", maxDepth)
	}
	switch v := v.(type) {
	case []any:
		for _, x := range v {
			if err := strictValue(x, depth+1); err != nil {
				return err
			}
		}
	case map[string]any:
		for key, x := range v {
			if l := strings.ToLower(key); l != key && tufKeys[l] {
				return fmt.Errorf("key %q, %q is meant", key, l)
			}
			if err := strictValue(x, depth+1); err != nil {
				return err
			}
		}
	}
	return nil
}
