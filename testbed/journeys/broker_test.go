package journeys

import (
	"bytes"
	"net"
	"os"
	"strconv"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/rogpeppe/go-internal/testscript"
)

// localBroker starts a broker on this machine, as a plant has one, and sets $BROKER:
// broker.
func localBroker(ts *testscript.TestScript, _ bool, _ []string) {
	o := &server.Options{ServerName: "plant", DontListen: true, NoSigs: true, NoLog: true, JetStream: true, StoreDir: ts.MkAbs("broker"),
		MQTT: server.MQTTOpts{Host: "127.0.0.1", Port: -1, AckWait: time.Second}}
	s, err := server.NewServer(o)
	ts.Check(err)
	s.Start()
	ts.Defer(func() { s.Shutdown(); s.WaitForShutdown() })
	if !s.ReadyForConnections(10 * time.Second) {
		ts.Fatalf("the broker is not up")
	}
	ts.Setenv("BROKER", "tcp://"+net.JoinHostPort(o.MQTT.Host, strconv.Itoa(o.MQTT.Port)))
}

// atBroker is a client whose subscription to topic outlives it; what comes is in the
// channel.
func atBroker(ts *testscript.TestScript, topic string) (mqtt.Client, chan []byte) {
	got := make(chan []byte, 1000)
	c := mqtt.NewClient(mqtt.NewClientOptions().AddBroker(ts.Getenv("BROKER")).SetClientID("plant").SetCleanSession(false).
		SetDefaultPublishHandler(func(_ mqtt.Client, m mqtt.Message) { got <- m.Payload() }))
	for _, t := range []func() mqtt.Token{c.Connect, func() mqtt.Token { return c.Subscribe(topic, 1, nil) }} {
		tok := t()
		if tok.Wait(); tok.Error() != nil {
			ts.Fatalf("%v", tok.Error())
		}
	}
	return c, got
}

// probe publishes a file until an answer comes: probe FROM TO FILE. Before somebody
// subscribes for the first time a broker keeps nothing.
func probe(ts *testscript.TestScript, _ bool, args []string) {
	c, got := atBroker(ts, args[1])
	defer c.Disconnect(100)
	body := []byte(ts.ReadFile(args[2]))
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); {
		c.Publish(args[0], 1, false, body).Wait()
		select {
		case <-got:
			return
		case <-time.After(500 * time.Millisecond):
		}
	}
	ts.Fatalf("no answer on %s", args[1])
}

// publish sends files: publish TOPIC FILE...
func publish(ts *testscript.TestScript, _ bool, args []string) {
	c := mqtt.NewClient(mqtt.NewClientOptions().AddBroker(ts.Getenv("BROKER")).SetClientID("sender"))
	if t := c.Connect(); t.Wait() && t.Error() != nil {
		ts.Fatalf("%v", t.Error())
	}
	defer c.Disconnect(100)
	for _, f := range args[1:] {
		if t := c.Publish(args[0], 1, false, []byte(ts.ReadFile(f))); t.Wait() && t.Error() != nil {
			ts.Fatalf("%v", t.Error())
		}
	}
}

// answers waits until a topic had a message that holds a word, and writes all that
// came: answers TOPIC WORD FILE.
func answers(ts *testscript.TestScript, _ bool, args []string) {
	c, got := atBroker(ts, args[0])
	defer c.Disconnect(100)
	var all bytes.Buffer
	for deadline := time.After(30 * time.Second); ; {
		select {
		case b := <-got:
			all.Write(append(b, '\n'))
			if bytes.Contains(b, []byte(args[1])) {
				ts.Check(os.WriteFile(ts.MkAbs(args[2]), all.Bytes(), 0o644))
				return
			}
		case <-deadline:
			ts.Fatalf("no %s on %s:\n%s", args[1], args[0], all.String())
		}
	}
}
