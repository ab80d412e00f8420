// Command standin is an inference engine beside the agent for journeys, see
// agent/engine/enginetest.
package main

import (
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"

	"github.com/dunlin-edge/dunlin/agent/engine/enginetest"
)

func main() {
	listen := flag.String("listen", "127.0.0.1:9000", "address, or the path of a unix socket")
	dir := flag.String("dir", "", "folder of the models")
	raw := flag.Bool("binary", false, "understand and give raw tensors")
	flag.Parse()
	network := "tcp"
	if (*listen)[0] == '/' {
		network = "unix"
	}
	l, err := net.Listen(network, *listen)
	if err == nil {
		err = http.Serve(l, &enginetest.Engine{Dir: *dir, Binary: *raw})
	}
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}
