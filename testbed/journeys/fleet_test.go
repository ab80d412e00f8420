package journeys

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// secret sets a variable to the first word of a file, or of stdout, that begins
// with a prefix: secret NAME FILE PREFIX.
func secret(ts *testscript.TestScript, _ bool, args []string) {
	if len(args) != 3 {
		ts.Fatalf("usage: secret NAME FILE PREFIX")
	}
	for _, word := range strings.FieldsFunc(ts.ReadFile(args[1]), func(r rune) bool { return strings.ContainsRune(" \t\n\",", r) }) {
		if strings.HasPrefix(word, args[2]) {
			ts.Setenv(args[0], word)
			return
		}
	}
	ts.Fatalf("secret: %s has no word that begins with %s", args[1], args[2])
}

// startLimit is how long a server may take until it serves.
const startLimit = 30 * time.Second

// ready waits for a server's ready file and tells the other commands where it is:
// ready FILE FOLDER.
func ready(ts *testscript.TestScript, _ bool, args []string) {
	if len(args) != 2 {
		ts.Fatalf("usage: ready FILE FOLDER")
	}
	var at struct{ API, MQTT string }
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	limit := time.After(startLimit)
	for {
		b, err := os.ReadFile(ts.MkAbs(args[0]))
		if err == nil && json.Unmarshal(b, &at) == nil {
			break
		}
		select {
		case <-tick.C:
		case <-limit:
			ts.Fatalf("ready: no server after %v: %v", startLimit, err)
		}
	}
	ts.Setenv("DUNLIN_SERVER", "https://"+at.API)
	ts.Setenv("API", at.API)
	ts.Setenv("MQTT", at.MQTT)
	ts.Setenv("DUNLIN_CA", filepath.Join(ts.MkAbs(args[1]), "ca.pem"))
}

// until runs a program again and again until its output matches: until REGEXP
// PROGRAM [ARGS].
func until(ts *testscript.TestScript, _ bool, args []string) {
	if len(args) < 2 {
		ts.Fatalf("usage: until REGEXP PROGRAM [ARGS]")
	}
	want, err := regexp.Compile("(?m)" + args[0])
	ts.Check(err)
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	limit := time.After(startLimit)
	for {
		err := ts.Exec(args[1], args[2:]...)
		if err == nil && want.MatchString(ts.ReadFile("stdout")) {
			return
		}
		select {
		case <-tick.C:
		case <-limit:
			ts.Fatalf("until: not within %v (%v): %s%s", startLimit, err, ts.ReadFile("stdout"), ts.ReadFile("stderr"))
		}
	}
}

// api sends a request with $DUNLIN_TOKEN, if set, and writes the status and the
// body of the answer: api METHOD PATH [FILE]. It fails unless the status is 2xx.
func api(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) < 2 || len(args) > 3 {
		ts.Fatalf("usage: api METHOD PATH [FILE]")
	}
	var body io.Reader
	if len(args) == 3 {
		body = bytes.NewReader([]byte(ts.ReadFile(args[2])))
	}
	req, err := http.NewRequest(args[0], ts.Getenv("DUNLIN_SERVER")+args[1], body)
	ts.Check(err)
	req.Header.Set("Content-Type", "application/json")
	if t := ts.Getenv("DUNLIN_TOKEN"); t != "" {
		req.Header.Set("Authorization", "Bearer "+t)
	}
	pem, err := os.ReadFile(ts.Getenv("DUNLIN_CA"))
	ts.Check(err)
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	client := &http.Client{Timeout: startLimit, Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS13}}}
	defer client.CloseIdleConnections()
	resp, err := client.Do(req)
	ts.Check(err)
	defer resp.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, 16<<20))
	ts.Check(err)
	fmt.Fprintf(ts.Stdout(), "%d %s\n", resp.StatusCode, answer)
	if good := resp.StatusCode/100 == 2; good == neg {
		ts.Fatalf("api: %s: %s", resp.Status, answer)
	}
}

// device writes the configuration of an agent with folders of its own into
// NAME.yaml: device NAME.
func device(ts *testscript.TestScript, _ bool, args []string) {
	if len(args) != 1 {
		ts.Fatalf("usage: device NAME")
	}
	dir := ts.MkAbs(args[0])
	ts.Check(os.MkdirAll(dir, 0o755))
	text := fmt.Sprintf("state: %s/state\nrun: %s/run\nlisten: \"\"\nworker: %s/dunlin-infer\n", dir, dir, bin)
	ts.Check(os.WriteFile(dir+".yaml", []byte(text), 0o644))
}
