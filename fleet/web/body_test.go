package web

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/dunlin-edge/dunlin/fleet"
	"github.com/dunlin-edge/dunlin/shared/bundle"
)

// pipes is a listener whose connections are in memory, so that time can be a test's.
type pipes struct {
	conns  chan net.Conn
	closed chan struct{}
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error { close(p.closed); return nil }

func (p *pipes) Addr() net.Addr { return &net.TCPAddr{} }

// upload is the head of a request that sends n bytes.
func (s *server) upload(role, path string, n int) string {
	return fmt.Sprintf("PUT %s HTTP/1.1\r\nHost: fleet\r\nAuthorization: Bearer %s\r\nContent-Length: %d\r\n\r\n", path, s.tokens[role], n)
}

func answerOf(t *testing.T, c net.Conn) *answer {
	t.Helper()
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return &answer{t, "PUT", resp.StatusCode, resp.Header, b}
}

// TestStalledBodies sends a part of a body and then nothing, or one byte in a while.
func TestStalledBodies(t *testing.T) {
	s := newServer(t)
	b := []byte("bytes of a model")
	blob := "/v1/blobs/" + bundle.DigestOf(b)
	for _, c := range []struct {
		name, role, path string
		sent             int           // bytes
		pause            time.Duration // before each
		status           int
		code             string
	}{
		{"a blob that stops", fleet.RolePublisher, blob, 5, 0, 408, "request.stalled"},
		{"a blob that never begins", fleet.RolePublisher, blob, 0, 0, 408, "request.stalled"},
		{"a blob that waits too long once", fleet.RolePublisher, blob, 1, stallTime + time.Second, 408, "request.stalled"},
		{"a role that stops", fleet.RolePublisher, "/v1/catalog/roles/dev", 5, 0, 408, "request.stalled"},
		{"a stranger who never begins", "", blob, 0, 0, 401, "auth.missing"},
		{"a blob on a slow line", fleet.RolePublisher, blob, len(b), stallTime - time.Second, 204, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := &pipes{make(chan net.Conn), make(chan struct{})}
				srv := &http.Server{Handler: New(s.config)}
				done := make(chan error)
				go func() { done <- srv.Serve(l) }()
				client, conn := net.Pipe()
				l.conns <- conn
				start := time.Now()
				io.WriteString(client, s.upload(c.role, c.path, len(b)))
				var writer sync.WaitGroup
				writer.Go(func() { // the answer may come before all of it is sent
					for _, x := range b[:c.sent] {
						time.Sleep(c.pause)
						if _, err := client.Write([]byte{x}); err != nil {
							return
						}
					}
				})
				a := answerOf(t, client)
				if took := time.Since(start); c.status != 204 && took > stallTime+time.Second {
					t.Errorf("refused after %v", took)
				}
				if c.code != "" {
					a.refused(c.status, c.code)
				} else if a.status != c.status {
					t.Errorf("%d %s", a.status, a.body)
				}
				client.Close()
				srv.Close()
				<-done
				writer.Wait()
			})
			if got := s.ask(fleet.RolePublisher, "HEAD", blob, nil).status; (got == 200) != (c.status == 204) {
				t.Errorf("asked for the blob: %d", got)
			}
		})
	}
}

// TestCutBodies ends the client's side of the connection in the middle of a body.
func TestCutBodies(t *testing.T) {
	s := newServer(t)
	plain := httptest.NewServer(s.handler)
	defer plain.Close()
	b := []byte("bytes of a model")
	digest := bundle.DigestOf(b)
	for _, path := range []string{"/v1/blobs/" + digest, "/v1/catalog/roles/dev"} {
		c, err := net.Dial("tcp", plain.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		io.WriteString(c, s.upload(fleet.RolePublisher, path, len(b))+string(b[:7]))
		if err := c.(*net.TCPConn).CloseWrite(); err != nil {
			t.Fatal(err)
		}
		answerOf(t, c).refused(400, "request.cut")
	}
	if a := s.ask(fleet.RolePublisher, "HEAD", "/v1/blobs/"+digest, nil); a.status != 404 {
		t.Errorf("half a blob is there: %d", a.status)
	}
	if acts := s.acts(); len(acts) != 0 {
		t.Error("something was done:", acts)
	}
}
