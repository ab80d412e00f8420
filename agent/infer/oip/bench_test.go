package oip_test

import (
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/dunlin-edge/dunlin/agent/infer/infertest"
	"github.com/dunlin-edge/dunlin/agent/infer/oip"
)

// BenchmarkUnixSocket is a request over HTTP on the unix socket, its JSON both
// ways included; added-us is what that takes beyond the runtime's own run of the
// same requests.
func BenchmarkUnixSocket(b *testing.B) {
	s, m := infertest.Server(b)
	if err := s.Activate(b.Context(), infertest.Digits(b, "1.1.0")); err != nil {
		b.Fatal(err)
	}
	path := filepath.Join(b.TempDir(), "infer.sock")
	l, err := net.Listen("unix", path)
	if err != nil {
		b.Fatal(err)
	}
	h := &http.Server{Handler: oip.Handler(oip.Config{Engine: s, Version: "0"})}
	done := make(chan error, 1)
	go func() { done <- h.Serve(l) }()
	b.Cleanup(func() { h.Close(); <-done })
	c := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", path)
	}}}
	defer c.CloseIdleConnections()
	flat, _ := image(b, 0)
	body := []byte(request(flat))
	var took []time.Duration
	for b.Loop() {
		began := time.Now()
		resp, err := c.Post("http://dunlin/v2/models/digits/infer", "application/json", bytes.NewReader(body))
		if err != nil {
			b.Fatal(err)
		}
		if _, err := io.Copy(io.Discard, resp.Body); err != nil || resp.StatusCode != http.StatusOK {
			b.Fatal(resp.Status, err)
		}
		resp.Body.Close()
		took = append(took, time.Since(began))
	}
	q, err := m.Take(true)[0].Latency.Decode()
	if err != nil {
		b.Fatal(err)
	}
	slices.Sort(took)
	for p, name := range map[float64]string{0.5: "p50", 0.99: "p99"} {
		i := int(p * float64(len(took)-1))
		b.ReportMetric(float64(took[i].Microseconds()), name+"-us")
		b.ReportMetric(q.Quantile(p), "runtime-"+name+"-us")
		b.ReportMetric(float64(took[i].Microseconds())-q.Quantile(p), "added-"+name+"-us")
	}
}
