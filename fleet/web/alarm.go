package web

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/dunlin-edge/dunlin/fleet"
)

// Alarms are what is wrong until it is mended.
type Alarms interface {
	// List returns the urgent ones first, then the oldest.
	List(ctx context.Context) []fleet.Alarm
	// Dismiss ends one; ErrAlarmUnknown when there is none.
	Dismiss(ctx context.Context, kind, subject, actor string) error
}

func (a *api) alarmRoutes() {
	route(a, get("/v1/alarms", "list-alarms", "List what is wrong, the urgent first"), fleet.RoleViewer, a.listAlarms)
	route(a, huma.Operation{OperationID: "dismiss-alarm", Method: http.MethodDelete, Path: "/v1/alarms/{kind}/{subject}", Summary: "End an alarm; it comes back if its cause is still there"}, fleet.RoleOperator, a.dismissAlarm)
	a.raw(http.MethodGet, "/metrics", fleet.RoleViewer, describe("metrics", "The alarms in the text format of Prometheus", "200", metricsType), a.metrics)
}

// AlarmView is something that is wrong.
type AlarmView struct {
	Kind    string    `json:"kind"`
	Subject string    `json:"subject" doc:"what it is about: an id or a name"`
	Since   time.Time `json:"since"`
	Text    string    `json:"text"`
	Next    string    `json:"next" doc:"who can do what about it"`
	Urgent  bool      `json:"urgent" doc:"false: a warning, there is time"`
}

func (a *api) listAlarms(ctx context.Context, _ *struct{}) (*page[AlarmView], error) {
	var items []AlarmView
	for _, x := range a.Alarms.List(ctx) {
		items = append(items, AlarmView(x))
	}
	return paged(items, 0, nil), nil
}

const metricsType = "text/plain; version=0.0.4; charset=utf-8"

// escapes are those of label values in the text format of Prometheus.
var escapes = strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`)

// metrics is what a monitor that reads Prometheus' text format alerts by.
func (a *api) metrics(w http.ResponseWriter, r *http.Request) error {
	var b strings.Builder
	xs := a.Alarms.List(r.Context())
	fmt.Fprintf(&b, "# HELP dunlin_alarms How many alarms are raised.\n# TYPE dunlin_alarms gauge\ndunlin_alarms %d\n", len(xs))
	b.WriteString("# HELP dunlin_alarm_since_seconds When an alarm was raised, Unix time.\n# TYPE dunlin_alarm_since_seconds gauge\n")
	for _, x := range xs {
		fmt.Fprintf(&b, "dunlin_alarm_since_seconds{kind=\"%s\",subject=\"%s\",urgent=\"%t\"} %d\n", escapes.Replace(x.Kind), escapes.Replace(x.Subject), x.Urgent, x.Since.Unix())
	}
	w.Header().Set("Content-Type", metricsType)
	io.WriteString(w, b.String()) // a client that went needs no answer
	return nil
}

func (a *api) dismissAlarm(ctx context.Context, in *struct {
	Kind    string `path:"kind" maxLength:"64"`
	Subject string `path:"subject" maxLength:"128"`
}) (*struct{}, error) {
	return nil, a.Alarms.Dismiss(ctx, in.Kind, in.Subject, actor(ctx))
}
