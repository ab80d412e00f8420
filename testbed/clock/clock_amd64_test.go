package clock_test

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/dunlin-edge/dunlin/testbed/clock"
)

// TestMain is the program whose clock is set, too: it says what its clocks say
// whenever it is asked.
func TestMain(m *testing.M) {
	if os.Getenv("SAY_THE_TIME") == "" {
		os.Exit(m.Run())
	}
	began := time.Now()
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		var t unix.Timex
		state, err := unix.Adjtimex(&t)
		fmt.Println(time.Now().Unix(), time.Since(began) < time.Minute, state, err == nil)
	}
}

func TestClock(t *testing.T) {
	for _, synchronised := range []bool{true, false} {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), "SAY_THE_TIME=1")
		in, err := cmd.StdinPipe()
		must(t, err)
		out, err := cmd.StdoutPipe()
		must(t, err)
		year := 365 * 24 * time.Hour
		c, err := clock.Start(cmd, -40*year, synchronised)
		must(t, err)
		lines := bufio.NewScanner(out)
		for _, offset := range []time.Duration{-40 * year, 60 * year, 0} {
			must(t, c.Turn(offset))
			_, err := io.WriteString(in, "now\n")
			must(t, err)
			lines.Scan()
			var unix int64
			var elapsed, asked bool
			var state int
			if _, err := fmt.Sscan(lines.Text(), &unix, &elapsed, &state, &asked); err != nil {
				t.Fatalf("%q: %v", lines.Text(), err)
			}
			if off := time.Since(time.Unix(unix, 0)) + offset; off.Abs() > 5*time.Second || !elapsed || asked != synchronised || state > 0 {
				t.Errorf("%v off, monotonic %v, synchronised %v: %q", off, elapsed, synchronised, strings.TrimSpace(lines.Text()))
			}
		}
		must(t, in.Close())
		must(t, cmd.Wait())
	}
	if _, err := clock.Start(exec.Command("/none"), 0, true); err == nil {
		t.Error("a program that does not exist was started")
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
