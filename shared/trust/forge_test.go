package trust

import (
	"context"
	"crypto/ed25519"
	"testing"

	"github.com/dunlin-edge/dunlin/shared/trust/trusttest"
)

type (
	doc  = trusttest.Doc
	file = trusttest.File
)

// forgery is the next version of both repositories of a world.
type forgery struct {
	*trusttest.Forgery
	w *world
}

func forge(w *world) *forgery {
	keys := map[string]ed25519.PrivateKey{"catalog/timestamp": w.stamp, "catalog/snapshot": w.snap, "catalog/targets": w.targets, "catalog/production": w.role}
	var all []trusttest.Genuine
	for _, x := range w.files() {
		k, ok := keys[x.Repo+"/"+x.Role]
		if !ok {
			k = w.director
		}
		all = append(all, trusttest.Genuine{Repo: x.Repo, Role: x.Role, Bytes: x.Bytes, Keys: []ed25519.PrivateKey{k}})
	}
	f := &forgery{trusttest.New(w.t, all, map[string][]byte{Catalog: w.catalogRoot, Director: w.directorRoot}, w.rootA, w.rootB), w}
	f.Files["catalog/targets"].Signed["version"] = 2
	return f
}

func part(signed doc, role string) doc { return trusttest.Part(signed, role) }

func identify(t *testing.T, k ed25519.PrivateKey) (string, doc) { return trusttest.Identify(t, k) }

// Refresh hands out all files, whatever is held.
func (f *forgery) Refresh(context.Context, Held) ([]File, error) {
	var out []File
	for _, x := range f.Send() {
		out = append(out, File(x))
	}
	return out, nil
}
