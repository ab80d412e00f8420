package stream

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"syscall"
	"testing"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"
	"github.com/nats-io/nats-server/v2/server"
)

// helper makes the test's own program a stream that answers with the message.
const helper = "DUNLIN_TEST_STREAM"

func TestMain(m *testing.M) {
	if url := os.Getenv(helper); url != "" {
		if err := answer(url); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func answer(url string) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	m, err := Dial(ctx, Broker{URL: url, In: "in", Out: "out", Client: "stream", Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		return err
	}
	defer m.Close()
	return Run(ctx, Config{Source: m, Ahead: 4, Drain: 5 * time.Second, Ask: func(_ context.Context, b []byte) ([]byte, error) { return b, nil }})
}

// broker is a real one on this machine.
func broker(t *testing.T) (url string) {
	t.Helper()
	o := &server.Options{ServerName: "test", DontListen: true, NoSigs: true, NoLog: true, JetStream: true, StoreDir: t.TempDir(),
		MQTT: server.MQTTOpts{Host: "127.0.0.1", Port: -1, AckWait: 2 * time.Second}}
	s, err := server.NewServer(o)
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	t.Cleanup(func() { s.Shutdown(); s.WaitForShutdown() })
	if !s.ReadyForConnections(10 * time.Second) {
		t.Fatal("the broker is not up")
	}
	return "tcp://" + o.MQTT.Host + ":" + strconv.Itoa(o.MQTT.Port)
}

func client(t *testing.T, url, id string) mqtt.Client {
	t.Helper()
	c := mqtt.NewClient(mqtt.NewClientOptions().AddBroker(url).SetClientID(id).SetCleanSession(true))
	if tok := c.Connect(); !tok.WaitTimeout(10*time.Second) || tok.Error() != nil {
		t.Fatal(tok.Error())
	}
	t.Cleanup(func() { c.Disconnect(0) })
	return c
}

// TestKilled kills the stream again and again while messages come: each is answered,
// some twice, and after a kill perhaps late.
func TestKilled(t *testing.T) {
	url := broker(t)
	listener, sender := client(t, url, "listener"), client(t, url, "sender")
	answers := make(chan int, 10_000)
	if tok := listener.Subscribe("out", 1, func(_ mqtt.Client, m mqtt.Message) {
		n, _ := strconv.Atoi(string(m.Payload()))
		answers <- n
	}); !tok.WaitTimeout(10*time.Second) || tok.Error() != nil {
		t.Fatal(tok.Error())
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	begin := func() *exec.Cmd {
		c := exec.Command(self)
		c.Env, c.Stderr = append(os.Environ(), helper+"="+url), os.Stderr
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		return c
	}
	const total = 300
	stream := begin()
	for known := false; !known; { // before its first subscription the broker keeps nothing for it
		sender.Publish("in", 1, false, "0").WaitTimeout(10 * time.Second)
		select {
		case <-answers:
			known = true
		case <-time.After(100 * time.Millisecond):
		}
	}
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		for n := range total {
			sender.Publish("in", 1, false, strconv.Itoa(n+1)).WaitTimeout(10 * time.Second)
		}
	}()
	seen, twice, kills, newest, late := map[int]bool{}, 0, 0, 0, 0
	deadline := time.After(25 * time.Second)
	for len(seen) < total {
		select {
		case n := <-answers:
			if n == 0 {
				continue
			}
			if seen[n] {
				twice++
				continue
			}
			if seen[n] = true; n < newest {
				late++
			}
			newest = max(newest, n)
			if len(seen)%60 == 0 && len(seen) < total {
				stream.Process.Kill()
				stream.Wait()
				kills++
				stream = begin()
			}
		case <-deadline:
			t.Fatalf("%d of %d answered after %d kills", len(seen), total, kills)
		}
	}
	<-sent
	t.Logf("%d messages answered over %d kills, %d of them twice, %d for the first time after a later one", total, kills, twice, late)
	stream.Process.Signal(syscall.SIGTERM)
	if err := stream.Wait(); err != nil {
		t.Errorf("told to end: %v", err)
	}
}

func TestBrokerCheck(t *testing.T) {
	for url, ok := range map[string]bool{
		"tcp://127.0.0.1:1883": true, "mqtt://localhost:1883": true, "tcp://[::1]:1883": true, "tls://broker.example:8883": true,
		"tcp://192.168.0.7:1883": false, "http://127.0.0.1": false, "127.0.0.1:1883": false, "": false,
	} {
		if err := (&Broker{URL: url, In: "a", Out: "b"}).Check(); (err == nil) != ok {
			t.Errorf("%q: %v", url, err)
		}
	}
	if (&Broker{URL: "tcp://127.0.0.1:1883", In: "a", Out: "a"}).Check() == nil {
		t.Error("answers come back as questions")
	}
}
