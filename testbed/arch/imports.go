package arch

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// allowed says which of our packages each package may import, besides what lies
// in its own folder. A package below a folder named here follows that folder's
// line unless it has one of its own. Test files may import what they need.
var allowed = map[string][]string{
	"shared/durable": {},
	"shared/tflite":  {},
	"shared/sketch":  {},
	"shared/picture": {},
	"shared/bundle":  {"shared/tflite", "shared/sketch"},
	"shared/where":   {},
	"shared/wire":    {"shared/bundle", "shared/sketch"},
	"shared/trust":   {"shared/durable"},

	"agent/slots":            {"shared/durable", "shared/bundle"},
	"agent/state":            {"shared/durable"},
	"agent/queue":            {"shared/wire", "shared/durable"},
	"agent/observe":          {"shared/sketch", "shared/wire", "shared/bundle"},
	"agent/infer":            {"shared/bundle", "shared/picture", "shared/tflite", "shared/sketch", "shared/durable", "agent/observe"},
	"agent/infer/litert":     {},
	"agent/link":             {"shared/wire", "shared/trust", "shared/durable"},
	"agent/usb":              {"shared/wire", "shared/trust", "shared/durable"},
	"agent/batch":            {"shared/bundle", "shared/durable"},
	"agent/stream":           {},
	"agent/shelf":            {"shared/durable"},
	"agent/serving":          {"agent/infer", "agent/engine", "agent/handoff", "shared/bundle"},
	"agent/engine":           {"agent/infer", "agent/infer/judge", "agent/infer/oip/elements", "agent/observe", "agent/shelf", "shared/bundle", "shared/durable"},
	"agent/handoff":          {"agent/infer", "agent/shelf", "shared/bundle", "shared/durable"},
	"agent/draw":             {"shared/picture"},
	"agent/identity":         {"shared/durable", "shared/wire"},
	"agent/bond":             {"shared/wire", "agent/identity"},
	"agent/wipe":             {"shared/durable"},
	"agent/facts":            {},
	"agent/doctor":           {"agent", "agent/*", "shared/durable"},
	"agent/tally":            {"shared/wire", "agent/update"},
	"agent/capture":          {"shared/wire", "shared/where", "shared/bundle", "shared/durable", "agent/queue", "agent/infer", "agent/truth"},
	"agent/truth":            {"shared/wire", "shared/sketch", "shared/bundle", "agent/observe", "agent/infer"},
	"agent/update":           {"shared/bundle", "shared/trust", "shared/wire", "agent/slots", "agent/state"},
	"agent":                  {"agent/*", "shared/*"},
	"agent/cmd/dunlin-agent": {"agent", "agent/batch", "agent/doctor", "agent/draw", "agent/infer", "agent/stream", "shared/bundle", "shared/durable"},
	"agent/cmd/dunlin-infer": {"agent/infer", "agent/infer/litert"},

	"fleet":                  {"shared/bundle", "shared/wire", "shared/sketch"},
	"fleet/alarm":            {"fleet"},
	"fleet/amend":            {"fleet", "fleet/offline", "fleet/publish", "shared/bundle", "shared/trust"},
	"fleet/backup":           {"fleet", "fleet/blob", "shared/bundle"},
	"fleet/kms":              {"fleet"},
	"fleet/modelsig":         {"fleet", "shared/bundle"},
	"fleet/pack":             {"fleet", "fleet/modelsig", "shared/bundle", "shared/tflite", "shared/sketch"},
	"fleet/offline":          {"fleet", "fleet/kms", "shared/bundle"},
	"fleet/publish":          {"fleet", "fleet/offline", "fleet/modelsig", "shared/bundle", "shared/trust"},
	"fleet/capture":          {"fleet", "shared/wire", "shared/bundle", "shared/where"},
	"fleet/catalog":          {"fleet", "shared/bundle", "shared/trust"},
	"fleet/director":         {"fleet", "shared/bundle"},
	"fleet/drift":            {"fleet", "shared/bundle", "shared/sketch", "shared/wire"},
	"fleet/lockbox":          {"fleet", "shared/bundle", "shared/wire"},
	"fleet/gate":             {},
	"fleet/evidence":         {"fleet", "fleet/gate", "fleet/rollout", "shared/sketch", "shared/wire"},
	"fleet/rollout":          {"fleet", "fleet/gate", "shared/wire", "shared/sketch"},
	"fleet/rollout/sim":      {"fleet", "fleet/gate", "fleet/rollout", "shared/sketch"},
	"fleet/enroll":           {"fleet", "shared/wire"},
	"fleet/truth":            {"fleet", "shared/wire", "shared/sketch"},
	"fleet/telemetry":        {"fleet", "shared/wire", "shared/sketch"},
	"fleet/broker":           {"fleet", "shared/wire", "shared/bundle"},
	"fleet/web":              {"fleet", "shared/wire", "shared/bundle"},
	"fleet/sqlite":           {"fleet", "shared/wire", "shared/bundle"},
	"fleet/blob":             {"fleet", "shared/wire", "shared/bundle"},
	"fleet/console":          {},
	"fleet/upkeep":           {"fleet", "fleet/alarm", "fleet/catalog", "fleet/director"},
	"fleet/fleetd":           {"fleet", "fleet/*", "shared/*"},
	"fleet/cmd/dunlin-fleet": {"fleet/fleetd", "fleet"},
	"fleet/cmd/dunlin":       {"fleet/rollout/sim", "fleet/amend", "fleet/offline", "fleet/pack", "fleet/kms", "fleet/publish", "fleet/modelsig", "fleet/lockbox", "fleet", "fleet/web", "shared/bundle", "shared/tflite", "shared/wire"},

	"testbed": {"agent", "agent/*", "fleet", "fleet/*", "shared/*"},
}

// imports checks the table above.
func imports(t *tree) []finding {
	var out []finding
	for _, f := range t.files {
		from := owner(f.dir())
		if f.test() {
			continue
		}
		if from == "" {
			out = append(out, finding(fmt.Sprintf("%s: package %s is not in the import table of testbed/arch", f.path, f.dir())))
			continue
		}
		for _, i := range f.ast.Imports {
			to, ours := strings.CutPrefix(strings.Trim(i.Path.Value, `"`), module+"/")
			if ours && !mayImport(from, to) {
				out = append(out, finding(fmt.Sprintf("%s: %s may not import %s", f.line(i), from, to)))
			}
		}
	}
	return out
}

// owner is the longest folder of the table that a package lies in.
func owner(dir string) string {
	best := ""
	for folder := range allowed {
		if below(dir, folder) && len(folder) > len(best) {
			best = folder
		}
	}
	// The programs and packages of agent and fleet have lines of their own.
	if (best == "agent" || best == "fleet") && dir != best {
		return ""
	}
	return best
}

func mayImport(from, to string) bool {
	target := owner(to)
	if from == target {
		return true
	}
	return slices.ContainsFunc(allowed[from], func(a string) bool {
		folder, all := strings.CutSuffix(a, "/*")
		return target == a || all && below(target, folder)
	})
}

// home says which packages may use a foreign module: the one place to look for
// what it does to us. Modules that are not named may be used anywhere.
var home = map[string][]string{
	"github.com/ebitengine/purego":         {"agent/infer/litert"},
	"go.etcd.io/bbolt":                     {"agent/state"},
	"github.com/eclipse/paho.mqtt.golang":  {"agent/link", "agent/stream"},
	"github.com/nats-io":                   {"fleet/broker"},
	"github.com/theupdateframework/go-tuf": {"shared/trust", "fleet/amend", "fleet/offline", "fleet/publish", "fleet/catalog", "fleet/director"},
	"github.com/sigstore/sigstore-go":      {"fleet/modelsig"},
	"github.com/sigstore/sigstore":         {"shared/trust", "fleet/kms", "fleet/modelsig", "fleet/offline", "fleet/publish", "fleet/catalog", "fleet/director"},
	"modernc.org/sqlite":                   {"fleet/sqlite"},
	"github.com/pressly/goose":             {"fleet/sqlite"},
	"github.com/danielgtaylor/huma":        {"fleet/web"},
	"github.com/fxamacker/cbor":            {"shared/wire", "shared/sketch", "shared/bundle"},
	"github.com/DataDog/sketches-go":       {"shared/sketch"},
	"github.com/spf13/cobra":               {"fleet/cmd/dunlin", "fleet/cmd/dunlin-fleet"},
	"oras.land/oras-go":                    {},
	"github.com/shirou/gopsutil":           {"agent", "agent/doctor", "agent/facts", "agent/observe", "agent/infer"},
	"github.com/landlock-lsm/go-landlock":  {"agent/infer"},
	"github.com/elastic/go-seccomp-bpf":    {"agent/infer"},
	"github.com/google/go-cmp":             {},
	"pgregory.net/rapid":                   {},
	"go.uber.org/goleak":                   {},
	"github.com/rogpeppe/go-internal":      {},
	"testing":                              {},
	"net/http/httptest":                    {},
	"database/sql":                         {"fleet/sqlite"},
}

// dependencies checks that product code uses a foreign module only at its home.
// Only the module's import path counts, so a list of none keeps it in tests.
func dependencies(t *tree) []finding {
	var out []finding
	for _, f := range t.files {
		if !f.product() {
			continue
		}
		for _, i := range f.ast.Imports {
			p := strings.Trim(i.Path.Value, `"`)
			for _, m := range slices.Sorted(maps.Keys(home)) {
				if below(p, m) && !slices.Contains(home[m], owner(f.dir())) && !testHelp(f.dir()) {
					out = append(out, finding(fmt.Sprintf("%s: %s may not use %s", f.line(i), f.dir(), p)))
				}
			}
		}
	}
	return out
}

// testHelp says whether a package exists for tests: simulators and builders of
// test input that several packages share.
func testHelp(dir string) bool {
	return strings.HasSuffix(dir, "test") || below(dir, "shared/durable/crashfs")
}

// unreachable says what a program must not contain, not even by way of others.
var unreachable = map[string][]string{
	"agent/cmd/dunlin-agent": {"agent/infer/litert", "fleet"},
	"agent/cmd/dunlin-infer": {"agent/link", "agent/update", "shared/trust", "fleet"},
	"fleet/cmd/dunlin-fleet": {"agent", "fleet/publish"},
	"fleet/cmd/dunlin":       {"agent"},
}

// reach checks what each program contains: the agent stays static and small, the
// worker has no network, the server has no publisher's keys.
func reach(t *tree) []finding {
	edges := map[string]map[string]bool{}
	for _, f := range t.files {
		if f.test() {
			continue
		}
		if edges[f.dir()] == nil {
			edges[f.dir()] = map[string]bool{}
		}
		for _, i := range f.ast.Imports {
			if to, ours := strings.CutPrefix(strings.Trim(i.Path.Value, `"`), module+"/"); ours {
				edges[f.dir()][to] = true
			}
		}
	}
	var out []finding
	for _, program := range slices.Sorted(maps.Keys(unreachable)) {
		seen := map[string]bool{}
		var walk func(dir, way string)
		walk = func(dir, way string) {
			if seen[dir] {
				return
			}
			seen[dir] = true
			if dir != program && below(dir, unreachable[program]...) {
				out = append(out, finding(fmt.Sprintf("%s contains %s by way of %s", program, dir, way)))
				return
			}
			for _, to := range slices.Sorted(maps.Keys(edges[dir])) {
				walk(to, way+" -> "+to)
			}
		}
		walk(program, program)
	}
	return out
}
