package truth

import (
	"fmt"
	"math"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/dunlin-edge/dunlin/agent/observe"
	"github.com/dunlin-edge/dunlin/shared/wire"
)

// Feedback is what an application says of an answer: the class that was right, by
// name or index, or whether the answer was.
type Feedback struct {
	RequestID string
	Model     string // needed only when two models answered under one id
	Label     string // a class name
	Index     *int   // of a class
	Correct   *bool  // of Label, Index and Correct one is set
}

// Judged is a word about an answer that counts.
type Judged struct {
	ID       ID
	Key      observe.Key // of the release that answered
	Right    bool
	Answered int    // class that was answered, -1: none
	Label    int    // class that was right, -1: not known
	Name     string // of it, empty: it has none
}

// Problem is a refusal: a code, a sentence and the next step.
type Problem struct {
	Status int    `json:"-"`
	Code   string `json:"code"`
	Detail string `json:"detail"`
	Next   string `json:"next"`
}

// Error implements error.
func (p *Problem) Error() string { return p.Detail + " (" + p.Code + ")" }

// Judge counts what is said of an answer for the release that gave it. The same
// word again changes nothing; another one is refused.
func (b *Book) Judge(f Feedback) (Judged, error) {
	j, again, err := b.judge(f)
	if err == nil && !again && b.c.Judged != nil {
		b.c.Judged(j)
	}
	return j, err
}

func (b *Book) judge(f Feedback) (j Judged, again bool, err error) {
	now, id := b.c.Now(), IDOf(f.RequestID)
	b.mu.Lock()
	defer b.mu.Unlock()
	x, err := b.answer(f, id, now)
	if err != nil {
		return j, false, err
	}
	j = Judged{ID: id, Key: x.release.key, Answered: int(x.class), Label: -1}
	if f.Correct != nil {
		if j.Right = *f.Correct; j.Right {
			j.Label = int(x.class)
		}
	} else {
		if j.Label, err = x.release.class(f); err != nil {
			return j, false, err
		}
		j.Right = j.Label == j.Answered
	}
	if j.Label >= 0 && j.Label < len(x.release.labels) {
		j.Name = x.release.labels[j.Label]
	}
	word := wrong
	if j.Right {
		word = right
	}
	if x.said != nothing {
		if x.said != word || x.label != int32(j.Label) {
			return j, false, &Problem{http.StatusConflict, "feedback.given", "something else was said of this answer before", "the first word counts; say it right once"}
		}
		return j, true, nil
	}
	x.said, x.label = word, int32(j.Label)
	w := b.window(x.release.key, now)
	if j.Right {
		w.truth.Right++
	} else {
		w.wrong(int32(j.Label), x.class)
	}
	return j, false, nil
}

// answer finds what is spoken of; the caller holds the lock.
func (b *Book) answer(f Feedback, id ID, now time.Time) (*answer, error) {
	var found *answer
	for model, r := range b.models {
		if f.Model != "" && f.Model != model {
			continue
		}
		x, late := r.find(id, now)
		switch {
		case x == nil:
		case late:
			b.window(x.release.key, now).truth.Late++
			return nil, unknown(fmt.Sprintf("the answer was given more than %v ago", Life))
		case found != nil:
			return nil, &Problem{http.StatusConflict, "feedback.ambiguous", "more than one model answered under this id", "say which one: \"model\": …"}
		default:
			found = x
		}
	}
	if found == nil {
		if k, ok := b.c.Active(f.Model); f.Model != "" && ok {
			b.window(k, now).truth.Late++
		}
		return nil, unknown("no answer of this id is remembered")
	}
	return found, nil
}

func unknown(why string) error {
	return &Problem{http.StatusNotFound, "feedback.unknown", why, fmt.Sprintf("send the answer's id as it came, within %v and before %d others were answered", Life, MaxAnswers)}
}

// class is the index of the class that f names.
func (r *release) class(f Feedback) (int, error) {
	if r.classes == 0 {
		return 0, &Problem{http.StatusBadRequest, "feedback.label", "the release that answered tells no classes apart", `send {"correct": true} or {"correct": false}`}
	}
	said := strconv.Quote(f.Label)
	if f.Index != nil {
		if said = strconv.Itoa(*f.Index); *f.Index >= 0 && *f.Index < r.classes {
			return *f.Index, nil
		}
	} else if i := slices.Index(r.labels, f.Label); i >= 0 {
		return i, nil
	}
	next := fmt.Sprintf("send an index below %d", r.classes)
	if len(r.labels) > 0 {
		next += ", or one of the names that the release has, such as " + strconv.Quote(r.labels[0])
	}
	return 0, &Problem{http.StatusBadRequest, "feedback.label", fmt.Sprintf("the release that answered has no class %.80s", said), next}
}

// Metric is a measure of an application's own. With a Model it counts for the
// release of it that serves, else for the device.
type Metric struct {
	Name  string
	Value float64
	Model string
}

// Measure takes in a measure.
func (b *Book) Measure(m Metric) error {
	if !wire.ValidMetric(m.Name) {
		return &Problem{http.StatusBadRequest, "metric.name", fmt.Sprintf("%.80q is no name of a metric", m.Name), fmt.Sprintf("use 1 to %d of a-z, 0-9, '_', '-' and '.', a letter first", wire.MaxMetricName)}
	}
	if math.IsNaN(m.Value) || math.Abs(m.Value) > maxValue {
		return &Problem{http.StatusBadRequest, "metric.value", "the value is out of range", "send a number between -1e100 and 1e100"}
	}
	var k observe.Key
	if m.Model != "" {
		var ok bool
		if k, ok = b.c.Active(m.Model); !ok {
			return &Problem{http.StatusNotFound, "metric.model", fmt.Sprintf("this device serves no model %.80q", m.Model), "name one that 'dunlin-agent status' shows, or none"}
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	w := b.window(k, b.c.Now())
	x, known := w.metrics[m.Name]
	if !known && len(w.metrics) >= wire.MaxMetrics {
		return &Problem{http.StatusTooManyRequests, "metric.names", fmt.Sprintf("%d other metrics were sent in this window already", wire.MaxMetrics), "use fewer names: a name is a measure, not a thing that is measured"}
	}
	x.Add(m.Value)
	w.metrics[m.Name] = x
	return nil
}

// maxValue keeps sums of squares finite.
const maxValue = 1e100
