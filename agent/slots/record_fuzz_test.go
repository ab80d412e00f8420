package slots

import (
	"strings"
	"testing"
)

func FuzzRecord(f *testing.F) {
	d := "sha256:" + strings.Repeat("0", 64)
	f.Add([]byte(`{"format":1,"bundle":"` + d + `","runtime":"` + d + `","files":[{"name":"a/b","digest":"` + d + `","size":1}],"note":{"x":1}}`))
	f.Add([]byte(`{"format":1,"bundle":"` + d + `","runtime":"","files":[{"name":"../b","digest":"` + d + `","size":1}]}`))
	f.Add([]byte(`{"format":2}`))
	f.Add([]byte(`null`))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := decodeRecord(b)
		if err != nil {
			return
		}
		for _, file := range r.Files {
			if strings.Contains(file.Name, "..") && strings.Contains("/"+file.Name+"/", "/../") || strings.HasPrefix(file.Name, "/") {
				t.Errorf("a record with file %q was read", file.Name)
			}
		}
		again, err := encodeRecord(r)
		if err != nil {
			t.Fatalf("what was read cannot be written: %v", err)
		}
		if _, err := decodeRecord(again); err != nil {
			t.Fatalf("what was written cannot be read: %v", err)
		}
	})
}

func FuzzVerdict(f *testing.F) {
	f.Add([]byte(`{"format":1,"bundle":"x","runtime":"y","verdict":"bad","code":"a.b","reason":"r","attempt":3}`))
	f.Add([]byte(`{"format":1,"verdict":"excellent"}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		if v, err := decodeVerdict(b); err == nil && v.Format != format {
			t.Errorf("format %d was read", v.Format)
		}
	})
}
