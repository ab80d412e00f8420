// Package where holds the conditions of captures: which answers' inputs are kept.
// Server and device read them alike.
//
//	feedback=wrong or score<0.5 and not class=seven
//
// A condition is comparisons joined by not, and, or, which bind in this order, and
// parentheses. Fields: feedback (none, right, wrong), class (a name, or an index in
// digits), score, entropy, latency (ms). Numbers compare with = != < <= > >=, words
// with = and !=. A comparison with what an answer does not have is false.
package where

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// Bounds of a condition.
const (
	MaxLength = 512 // bytes
	maxDepth  = 16
	maxTerms  = 32
)

// Values of feedback.
const (
	None  = "none"
	Right = "right"
	Wrong = "wrong"
)

// Answer is what a condition is about. NaN: the answer has no such number.
type Answer struct {
	Feedback  string // None, Right or Wrong
	Class     int    // -1: none
	ClassName string // empty: it has none
	Score     float64
	Entropy   float64
	Latency   float64 // ms
}

// Expr is a condition. The zero value holds for nothing.
type Expr struct {
	root     node
	feedback bool
}

// Match tells whether the condition holds.
func (e Expr) Match(a Answer) bool { return e.root != nil && e.root.match(&a) }

// Feedback tells whether the condition asks for feedback: what does not hold when
// an answer is given may hold later.
func (e Expr) Feedback() bool { return e.feedback }

// String is the condition in one way of writing; read again it is the same.
func (e Expr) String() string {
	if e.root == nil {
		return ""
	}
	return e.root.text()
}

type node interface {
	match(*Answer) bool
	text() string
}

type (
	and   struct{ a, b node }
	or    struct{ a, b node }
	not   struct{ of node }
	words struct { // field = or != word
		field, word string
		equal       bool
	}
	numbers struct {
		field, op string
		value     float64
	}
)

func (n and) match(a *Answer) bool { return n.a.match(a) && n.b.match(a) }
func (n or) match(a *Answer) bool  { return n.a.match(a) || n.b.match(a) }
func (n not) match(a *Answer) bool { return !n.of.match(a) }
func (n and) text() string         { return "(" + n.a.text() + " and " + n.b.text() + ")" }
func (n or) text() string          { return "(" + n.a.text() + " or " + n.b.text() + ")" }
func (n not) text() string         { return "not " + n.of.text() }

func (n words) match(a *Answer) bool {
	if n.field == "feedback" {
		return (a.Feedback == n.word) == n.equal
	}
	if a.Class < 0 {
		return false
	}
	same := n.word == a.ClassName && a.ClassName != "" || n.word == strconv.Itoa(a.Class)
	return same == n.equal
}

func (n words) text() string {
	op := "!="
	if n.equal {
		op = "="
	}
	return n.field + op + quoted(n.word)
}

// quoted is a word as it is read again.
func quoted(w string) string {
	if w != "" && strings.IndexFunc(w, func(r rune) bool { return !plain(r) }) < 0 && !reserved(w) {
		return w
	}
	return "'" + w + "'"
}

func (n numbers) match(a *Answer) bool {
	v := map[string]float64{"score": a.Score, "entropy": a.Entropy, "latency": a.Latency}[n.field]
	if math.IsNaN(v) {
		return false
	}
	switch n.op {
	case "=":
		return v == n.value
	case "!=":
		return v != n.value
	case "<":
		return v < n.value
	case "<=":
		return v <= n.value
	case ">":
		return v > n.value
	}
	return v >= n.value
}

func (n numbers) text() string { return n.field + n.op + strconv.FormatFloat(n.value, 'g', -1, 64) }

// Parse reads a condition.
func Parse(text string) (Expr, error) {
	if len(text) > MaxLength {
		return Expr{}, fmt.Errorf("condition: longer than %d bytes", MaxLength)
	}
	tokens, err := scan(text)
	if err != nil {
		return Expr{}, fmt.Errorf("condition: %w", err)
	}
	p := &parser{tokens: tokens}
	root, err := p.or(0)
	if err == nil && p.at < len(p.tokens) {
		err = fmt.Errorf("%q follows its end; join with and, or", p.tokens[p.at].text)
	}
	if err != nil {
		return Expr{}, fmt.Errorf("condition: %w", err)
	}
	return Expr{root, p.feedback}, nil
}
