package agent

import (
	"context"
	"time"

	"github.com/shirou/gopsutil/v4/disk"
	"github.com/shirou/gopsutil/v4/load"
	"github.com/shirou/gopsutil/v4/mem"
	"github.com/shirou/gopsutil/v4/sensors"
)

// hostMeasures reads the host once. A measure that the host lacks is absent.
func hostMeasures(ctx context.Context, stateDir string) map[string]float64 {
	out := map[string]float64{}
	if l, err := load.AvgWithContext(ctx); err == nil {
		out["load1"] = l.Load1
	}
	if m, err := mem.VirtualMemoryWithContext(ctx); err == nil {
		out["mem_available_kb"] = float64(m.Available >> 10)
	}
	if d, err := disk.UsageWithContext(ctx, stateDir); err == nil {
		out["disk_free_kb"] = float64(d.Free >> 10)
	}
	if ts, err := sensors.TemperaturesWithContext(ctx); err == nil {
		for _, t := range ts {
			if t.Temperature > out["temperature_c"] {
				out["temperature_c"] = t.Temperature
			}
		}
	}
	return out
}

// alignedStart is the beginning of the window that holds t.
func alignedStart(t time.Time, window time.Duration) time.Time { return t.UTC().Truncate(window) }
