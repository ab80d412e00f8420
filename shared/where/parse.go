package where

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// token is a word, an operator or a parenthesis.
type token struct {
	text   string
	quoted bool // a word in quotes is never and, or, not
	op     bool
}

// plain tells whether a word may hold r without quotes.
func plain(r rune) bool {
	return unicode.IsLetter(r) || unicode.IsDigit(r) || r == '_' || r == '-' || r == '.' || r == '+'
}

func reserved(w string) bool { return w == "and" || w == "or" || w == "not" }

// scan cuts a condition into tokens.
func scan(s string) ([]token, error) {
	if !utf8.ValidString(s) {
		return nil, errors.New("it is no UTF-8")
	}
	var out []token
	for s = strings.TrimSpace(s); s != ""; s = strings.TrimSpace(s) {
		switch c := s[0]; {
		case c == '(' || c == ')':
			out, s = append(out, token{text: s[:1]}), s[1:]
		case c == '\'' || c == '"':
			end := strings.IndexByte(s[1:], c)
			if end < 0 {
				return nil, fmt.Errorf("%s is not closed", s[:1])
			}
			w := s[1 : 1+end]
			if strings.ContainsAny(w, "'\"") || strings.ContainsFunc(w, unicode.IsControl) {
				return nil, errors.New("a word in quotes holds no quotes and no control characters")
			}
			out, s = append(out, token{text: w, quoted: true}), s[end+2:]
		case strings.IndexByte("=!<>", c) >= 0:
			n := 1
			if len(s) > 1 && s[1] == '=' {
				n = 2
			}
			op := s[:n]
			if op == "==" {
				op = "="
			}
			if op == "!" {
				return nil, errors.New("! is written not or !=")
			}
			out, s = append(out, token{text: op, op: true}), s[n:]
		default:
			n := strings.IndexFunc(s, func(r rune) bool { return !plain(r) })
			if n < 0 {
				n = len(s)
			}
			if n == 0 {
				r, _ := utf8.DecodeRuneInString(s)
				return nil, fmt.Errorf("%q is not understood", r)
			}
			out, s = append(out, token{text: s[:n]}), s[n:]
		}
	}
	return out, nil
}

// parser reads tokens by recursive descent, to a bounded depth.
type parser struct {
	tokens   []token
	at       int
	terms    int
	feedback bool
}

// word takes the next token if it is this one.
func (p *parser) word(w string) bool {
	if p.at < len(p.tokens) && p.tokens[p.at] == (token{text: w}) {
		p.at++
		return true
	}
	return false
}

func (p *parser) or(depth int) (node, error) {
	a, err := p.and(depth)
	for err == nil && p.word("or") {
		var b node
		if b, err = p.and(depth); err == nil {
			a = or{a, b}
		}
	}
	return a, err
}

func (p *parser) and(depth int) (node, error) {
	a, err := p.not(depth)
	for err == nil && p.word("and") {
		var b node
		if b, err = p.not(depth); err == nil {
			a = and{a, b}
		}
	}
	return a, err
}

func (p *parser) not(depth int) (node, error) {
	if depth >= maxDepth {
		return nil, fmt.Errorf("more than %d levels deep", maxDepth)
	}
	switch {
	case p.word("not"):
		of, err := p.not(depth + 1)
		return not{of}, err
	case p.word("("):
		n, err := p.or(depth + 1)
		if err == nil && !p.word(")") {
			err = errors.New("a ) is missing")
		}
		return n, err
	}
	return p.comparison()
}

func (p *parser) comparison() (node, error) {
	if p.terms++; p.terms > maxTerms {
		return nil, fmt.Errorf("more than %d comparisons", maxTerms)
	}
	if len(p.tokens)-p.at < 3 || p.tokens[p.at].quoted || p.tokens[p.at].op || !p.tokens[p.at+1].op || p.tokens[p.at+2].op {
		return nil, errors.New("a comparison like score<0.5 is wanted")
	}
	field, op, value := p.tokens[p.at].text, p.tokens[p.at+1].text, p.tokens[p.at+2]
	p.at += 3
	if !value.quoted && (reserved(value.text) || value.text == "(" || value.text == ")") {
		return nil, fmt.Errorf("%s %s: a value is wanted", field, op)
	}
	switch field {
	case "feedback", "class":
		if op != "=" && op != "!=" {
			return nil, fmt.Errorf("%s compares with = and !=, not %s", field, op)
		}
		if field == "feedback" {
			p.feedback = true
			if !slices.Contains([]string{None, Right, Wrong}, value.text) {
				return nil, fmt.Errorf("feedback is none, right or wrong, not %q", value.text)
			}
		} else if value.text == "" {
			return nil, errors.New("class: a name or an index is wanted")
		}
		return words{field, value.text, op == "="}, nil
	case "score", "entropy", "latency":
		v, err := strconv.ParseFloat(value.text, 64)
		if err != nil || math.IsNaN(v) || math.IsInf(v, 0) || value.quoted {
			return nil, fmt.Errorf("%s compares with a number, not %q", field, value.text)
		}
		return numbers{field, op, v}, nil
	}
	return nil, fmt.Errorf("there is no field %q; there are feedback, class, score, entropy, latency", field)
}
