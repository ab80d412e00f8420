package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/dunlin-edge/dunlin/fleet"
	"github.com/dunlin-edge/dunlin/shared/bundle"
)

// holders keep one root key and one release key each.
var holders = []string{"ada", "ben", "cleo"}

// passphrase of the demo's holders. A real holder types one of their own.
const passphrase = "demo holders share this one"

func (d *demo) keys() string { return filepath.Join(d.out, "ceremony") }

func (d *demo) releaseKey(holder string) string {
	return filepath.Join(d.keys(), "keys", holder+"-release.pem")
}

// ceremony makes both roots, two of three holders, one holder at a time.
func (d *demo) ceremony(ctx context.Context) error {
	d.say("\nThe ceremony: three holders make the roots of catalog and director, two of three must sign. The server never sees these keys.\n")
	pass := []string{"DUNLIN_PASSPHRASE=" + passphrase}
	for _, h := range holders {
		if _, err := d.sh.run(ctx, pass, "dunlin", "keys", "init", "--dir", d.keys(), "--holder", h); err != nil {
			return err
		}
	}
	for _, h := range holders[:2] {
		if _, err := d.sh.run(ctx, pass, "dunlin", "keys", "sign", "--dir", d.keys(), "--holder", h); err != nil {
			return err
		}
	}
	if _, err := d.sh.run(ctx, pass, "dunlin", "keys", "install", "--dir", d.keys()); err != nil {
		return err
	}
	d.say("\nBeside that, a key of the publisher: everything that is packed carries a model.sig that anybody can verify.\n")
	_, err := d.sh.run(ctx, pass, "dunlin", "keys", "model-signing", "--out", d.signKey())
	return err
}

func (d *demo) signKey() string { return filepath.Join(d.out, "publisher.pem") }

// signing is the environment of those who pack.
func (d *demo) signing() []string {
	return []string{"DUNLIN_SIGN_KEY=" + d.signKey(), "DUNLIN_PASSPHRASE=" + passphrase}
}

// publishRuntime packs the runtime library of this machine and publishes it as a
// component of its own.
func (d *demo) publishRuntime(ctx context.Context) error {
	arch := runtime.GOARCH
	d.say("\nThe runtime is a signed component like a model; an agent package carries none.\n")
	dir := filepath.Join(d.out, "bundles", "runtime")
	lib := filepath.Join(d.runtime, arch, "libLiteRt.so")
	if _, err := d.sh.run(ctx, d.signing(), "dunlin", "model", "pack", "--runtime", lib, "--arch", arch, "--version", "2.3.0", "--out", dir); err != nil {
		return err
	}
	return d.sign(ctx, dir, false)
}

// publish packs a release from its folder and signs it with two holders' keys.
func (d *demo) publish(ctx context.Context, folder, version string) error {
	dir := filepath.Join(d.out, "bundles", version)
	args := []string{"model", "pack", filepath.Join(d.models, folder), "--out", dir}
	// A careful publisher is stopped here already; this one insists.
	insists := folder == "shape" || folder == "crash"
	if insists {
		args = append(args, "--force")
	}
	if _, err := d.sh.quiet(ctx, d.signing(), "dunlin", args...); err != nil {
		return err
	}
	d.say("  $ dunlin %s\n", strings.Join(quoted(args), " "))
	return d.sign(ctx, dir, insists)
}

// sign publishes a bundle with the keys of two holders.
func (d *demo) sign(ctx context.Context, dir string, force bool) error {
	args := []string{"model", "publish", dir, "--channel", channel, "--key", d.releaseKey(holders[0]), "--key", d.releaseKey(holders[1])}
	if force {
		args = append(args, "--force")
	}
	_, err := d.sh.run(ctx, []string{"DUNLIN_PASSPHRASE=" + passphrase}, "dunlin", args...)
	return err
}

// api reads the server's API.
type api struct {
	base, token string
	http        *http.Client
}

func newAPI(base, token, ca string) (api, error) {
	pem, err := os.ReadFile(ca)
	if err != nil {
		return api{}, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return api{}, errors.New("no certificate in " + ca)
	}
	return api{base, token, &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool, ServerName: "localhost", MinVersion: tls.VersionTLS13}}}}, nil
}

func (a api) get(ctx context.Context, path string, out any) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, a.base+path, nil)
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Bearer "+a.token)
	resp, err := a.http.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, 16<<20))
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("GET %s: %s: %s", path, resp.Status, b)
	}
	return json.Unmarshal(b, out)
}

type rolloutView struct {
	ID      string              `json:"id"`
	Status  string              `json:"status"`
	Code    string              `json:"code"`
	Reason  string              `json:"reason"`
	Waiting string              `json:"waiting"`
	Gates   []fleet.GateReading `json:"gates"`
}

func (a api) rollout(ctx context.Context, id string) (rolloutView, error) {
	var r rolloutView
	return r, a.get(ctx, "/v1/rollouts/"+id, &r)
}

type deviceView struct {
	ID     string `json:"id"`
	Online bool   `json:"online"`
	Proof  string `json:"proof"`
	Wish   struct {
		Generation int64 `json:"generation"`
	} `json:"wish"`
	Models []struct {
		Model  string `json:"model"`
		Active *struct {
			Path    string `json:"path"`
			Verdict string `json:"verdict"`
		} `json:"active"`
	} `json:"models"`
}

// runs tells whether the device serves the version and has judged it good.
func (d deviceView) runs(version string) bool {
	for _, m := range d.Models {
		if m.Model == modelName && m.Active != nil {
			return m.Active.Verdict == "good" && strings.HasSuffix(m.Active.Path, "/"+version)
		}
	}
	return false
}

func (a api) device(ctx context.Context, id string) (deviceView, error) {
	var v deviceView
	return v, a.get(ctx, "/v1/devices/"+id, &v)
}

func (a api) devices(ctx context.Context) ([]deviceView, error) {
	var page struct {
		Items []deviceView `json:"items"`
	}
	return page.Items, a.get(ctx, "/v1/devices?limit=100", &page)
}

// readDigits reads the held-out images and labels.
func readDigits(path string) (*digits, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	arrays, err := bundle.ReadNPZ(b)
	if err != nil {
		return nil, err
	}
	images, labels := arrays["images"], arrays["labels"]
	if images == nil || labels == nil || images.DType != "FP32" || images.Len() != labels.Len() {
		return nil, errors.New("arrays images (FP32) and labels wanted")
	}
	d := &digits{}
	for i := range images.Len() {
		var img []float32
		for _, v := range bundle.Values("FP32", images.Row(i)) {
			img = append(img, float32(v))
		}
		d.images = append(d.images, img)
		d.labels = append(d.labels, int(bundle.Values(labels.DType, labels.Row(i))[0]))
	}
	return d, nil
}
