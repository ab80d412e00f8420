// Package vitals reads the health of workers: their memory, whether they leak, and
// whether their deaths are a loop.
package vitals

import (
	"bytes"
	"os"
	"strconv"
)

// PrivateKB is a process's memory that belongs to nobody else, 0 when it cannot be
// told. See proc(5), RssAnon.
func PrivateKB(pid int) int64 { return statusKB(pid, "RssAnon:") }

// PeakKB is the highest resident memory of a process, 0 when it cannot be told.
func PeakKB(pid int) int64 { return statusKB(pid, "VmHWM:") }

func statusKB(pid int, field string) int64 {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/status")
	if err != nil {
		return 0
	}
	for line := range bytes.Lines(b) {
		if v, ok := bytes.CutPrefix(line, []byte(field)); ok {
			if f := bytes.Fields(v); len(f) > 0 {
				n, _ := strconv.ParseInt(string(f[0]), 10, 64) // 0 says that it cannot be told
				return n
			}
		}
	}
	return 0
}
