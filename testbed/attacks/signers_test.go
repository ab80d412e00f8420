package attacks

import (
	"crypto/ed25519"
	"errors"
	"testing"

	"github.com/dunlin-edge/dunlin/fleet"
	"github.com/dunlin-edge/dunlin/fleet/catalog/catalogtest"
	"github.com/dunlin-edge/dunlin/shared/trust"
	"github.com/dunlin-edge/dunlin/shared/trust/trusttest"
)

// publisherRows have keys of publishers, fewer than a channel asks for.
func publisherRows() []group {
	signs := func(f *forgery, keys ...ed25519.PrivateKey) {
		f.Files["catalog/production"].Signed["targets"].(doc)["production/digits/6.6.6"] = f.target("catalog/production", second)
		f.Files["catalog/production"].Keys = keys
	}
	return []group{{"Channel keys below the threshold, or a hostile publisher", "one release key where two must sign, all online keys and the network", []attack{
		{name: "signs a release alone", code: trust.CodeSignature, forge: func(f *forgery) { signs(f, f.w.pub.Release[0]) }},
		{name: "signs twice with one key", code: trust.CodeMalformed, forge: func(f *forgery) { signs(f, f.w.pub.Release[0], f.w.pub.Release[0]) }},
		{name: "signs in another holder's name", code: trust.CodeSignature, forge: func(f *forgery) {
			signs(f, f.w.pub.Release[0], f.w.pub.Release[0])
			f.Files["catalog/production"].Sigs = func(sigs []any) []any {
				id, _ := trusttest.Identify(f.T, f.w.pub.Release[1])
				sigs[1].(doc)["keyid"] = id
				return sigs
			}
		}},
		{name: "adds a key of its own as the second", code: trust.CodeSignature, forge: func(f *forgery) { signs(f, f.w.pub.Release[0], catalogtest.NewKey()) }},
		{name: "adds the online keys as the second", code: trust.CodeSignature, forge: func(f *forgery) { signs(f, f.w.pub.Release[0], f.w.pub.Online.Director, f.w.pub.Online.Snapshot) }},
		{name: "uploads to the server what one holder signed", powers: "a publisher's API token", code: fleet.ErrCatalogRefused.Code, run: func(t *testing.T, w *world) {
			md := w.pub.Next(channel, nil)
			_, err := w.catalog.Ingest(t.Context(), channel, catalogtest.Sign(t, md, w.pub.Release[0]), "mallory")
			if !errors.Is(err, fleet.ErrCatalogRefused) {
				t.Errorf("%v", err)
			}
		}},
		{name: "proposes one thing and has another signed", code: "", holds: "each holder's machine verifies what it signs", test: "fleet/publish TestForeignProposals"},
		{name: "promotes a release that was never in the channel before", holds: "the same digest under the next channel's signatures, or nothing", test: "fleet/publish TestPromote"},
	}}, {"A publisher of one model, or of dev", "all keys of its own role, all online keys and the network", []attack{
		{name: "names another's model in its role", powers: "the role may name production/other only", code: trust.CodeDisagree, forge: func(f *forgery) {
			f.Files["catalog/targets"].Signed["version"] = 2
			trusttest.Part(f.Files["catalog/targets"].Signed, channel)["paths"] = []any{"production/other/*"}
		}},
		{name: "names a model of production in the role of dev", code: trust.CodeDisagree, forge: func(f *forgery) {
			f.Files["catalog/targets"].Signed["version"] = 2
			trusttest.Part(f.Files["catalog/targets"].Signed, channel)["paths"] = []any{"dev/*/*"}
		}},
		{name: "says that its role is that of another channel", code: trust.CodeWrongChannel, forge: func(f *forgery) { f.custom("catalog/production")["channel"] = "dev" }},
		{name: "signs production with the build server's key for dev", code: trust.CodeSignature, forge: func(f *forgery) { f.Files["catalog/production"].Keys = []ed25519.PrivateKey{catalogtest.NewKey()} }},
		{name: "lowers a floor that it signed before", holds: "the greatest floor ever seen holds", run: func(t *testing.T, w *world) {
			d := w.device(t)
			d.believes(honest(w.later))
			f := w.forge(t, w.last)
			f.custom("catalog/production")["floors"] = doc{"digits": 0}
			f.Files["director/targets"].Signed["targets"] = w.forge(t, w.early).Files["director/targets"].Signed["targets"]
			for _, x := range d.believes(sends(f.Send())).Targets {
				if x.Path == first && !x.BelowFloor {
					t.Error("the floor fell")
				}
			}
		}},
		{name: "signs a hostile model for its channel, as it may", holds: "it is proven in a sandbox and taken back when it fails its contract; what a contract cannot see is **not defended**", test: "agent/update TestProbationTakesItBack"},
	}}}
}

// rootRows have keys of the ceremony, fewer than the root asks for.
func rootRows() []group {
	one := func(f *forgery) ed25519.PrivateKey { return f.w.pub.Root[0] }
	root := func(change func(*forgery, *trusttest.File)) func(*forgery) {
		return func(f *forgery) { change(f, f.Root(trust.Catalog)) }
	}
	return []group{{"One root key", "one root key where two must sign, all online keys and the network", []attack{
		{name: "signs a root alone", code: trust.CodeSignature, forge: root(func(f *forgery, r *trusttest.File) { r.Keys = []ed25519.PrivateKey{one(f)} })},
		{name: "signs a root twice", code: trust.CodeMalformed, forge: root(func(f *forgery, r *trusttest.File) { r.Keys = []ed25519.PrivateKey{one(f), one(f)} })},
		{name: "gives the root to keys of its own, who sign it", code: trust.CodeSignature, forge: root(func(f *forgery, r *trusttest.File) {
			own := []ed25519.PrivateKey{catalogtest.NewKey(), catalogtest.NewKey()}
			r.Grant(f.T, "root", own...)
			r.Keys = append(own, one(f))
		})},
		{name: "lowers the root's threshold", code: trust.CodeSignature, forge: root(func(f *forgery, r *trusttest.File) {
			trusttest.Part(r.Signed, "root")["threshold"] = 1
			r.Keys = []ed25519.PrivateKey{one(f)}
		})},
	}}, {"Roots and roles that are made wrongly", "the threshold of root keys, by mistake or by force", []attack{
		{name: "asks for no signature at all", code: trust.CodeMalformed, forge: root(func(_ *forgery, r *trusttest.File) { trusttest.Part(r.Signed, "root")["threshold"] = 0 })},
		{name: "names a key twice under two ids", code: trust.CodeSignature, holds: "it counts once", forge: func(f *forgery) {
			x := f.Files["catalog/targets"]
			x.Signed["version"] = 2
			id, public := trusttest.Identify(f.T, f.w.pub.Release[0])
			twin := doc{"keytype": "ed25519", "scheme": "ed25519", "keyval": public["keyval"], "x-note": "twin"}
			x.Signed["delegations"].(doc)["keys"].(doc)[trusttest.Hash("twin")] = twin
			trusttest.Part(x.Signed, channel)["keyids"] = []any{id, trusttest.Hash("twin")}
			role := f.Files["catalog/production"]
			role.Keys = []ed25519.PrivateKey{f.w.pub.Release[0], f.w.pub.Release[0]}
			role.Sigs = func(sigs []any) []any { sigs[1].(doc)["keyid"] = trusttest.Hash("twin"); return sigs }
		}},
		{name: "gives the root to keys of a type that devices do not know", code: trust.CodeUnknownKey, forge: root(func(_ *forgery, r *trusttest.File) {
			for _, k := range r.Signed["keys"].(doc) {
				k.(doc)["keytype"], k.(doc)["scheme"] = "ml-dsa", "ml-dsa-65"
			}
		})},
		{name: "gives a channel to a key of a type that devices do not know", code: trust.CodeUnknownKey, forge: func(f *forgery) {
			x := f.Files["catalog/targets"]
			x.Signed["version"] = 2
			for _, k := range x.Signed["delegations"].(doc)["keys"].(doc) {
				k.(doc)["keytype"], k.(doc)["scheme"] = "ml-dsa", "ml-dsa-65"
			}
		}},
		{name: "signs a root that has expired", code: trust.CodeFreeze, forge: root(func(_ *forgery, r *trusttest.File) { r.Signed["expires"] = "2026-11-23T11:59:59Z" })},
	}}, {"Practice keys", "the one practice key of a fleet that was hardened, and all online keys", []attack{
		{name: "signs a root after the fleet was hardened", code: trust.CodeSignature, run: hardened(func(f *forgery, practice ed25519.PrivateKey) {
			f.Root(trust.Catalog).Keys = []ed25519.PrivateKey{practice}
		})},
		{name: "signs a release after the fleet was hardened", code: trust.CodeSignature, run: hardened(func(f *forgery, practice ed25519.PrivateKey) {
			f.Files["catalog/production"].Signed["version"] = 9
			f.Files["catalog/production"].Keys = []ed25519.PrivateKey{practice}
		})},
		{name: "signs anything before the fleet was hardened", holds: "**this succeeds**: practice keys protect nothing; `dunlin keys status` says so in red", test: "fleet/publish TestPractice"},
	}}}
}

// hardened takes a device from a root of one key to one of two, as 'dunlin keys
// harden' does, and lets the thief of the first key attack it.
func hardened(theft func(f *forgery, practice ed25519.PrivateKey)) func(*testing.T, *world) {
	return func(t *testing.T, w *world) {
		practice, new := w.pub.Root[2], []ed25519.PrivateKey{catalogtest.NewKey(), catalogtest.NewKey()}
		harden := func(f *forgery) *trusttest.File {
			r := f.Root(trust.Catalog)
			r.Grant(t, "root", new...)
			r.Keys = append(new, f.w.pub.Root[:2]...)
			return r
		}
		d := w.device(t)
		d.believes(honest(w.early))
		f := w.forge(t, w.later)
		harden(f)
		d.believes(sends(f.Send()))
		f = w.forge(t, w.last)
		harden(f)
		theft(f, practice)
		d.refuses(sends(f.Send()), trust.CodeSignature)
	}
}
