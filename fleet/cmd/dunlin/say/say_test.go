package say

import "testing"

// TestPlain lets a device say nothing that a terminal would act on.
func TestPlain(t *testing.T) {
	for in, want := range map[string]string{
		"für Zähler 7: 2 > 1":                "für Zähler 7: 2 > 1",
		"\x1b[2J\x1b]0;title\a":              " [2J ]0;title ",
		"one\r\ntwo\tthree":                  "one  two three",
		"right\u202eto left, \u200bno width": "right to left,  no width",
		"\xff\xfe":                           "\ufffd\ufffd",
	} {
		if got := Plain(in); got != want {
			t.Errorf("%q becomes %q, want %q", in, got, want)
		}
	}
}

// TestPairs lets facts bring no line and no escape either.
func TestPairs(t *testing.T) {
	if got := Pairs(map[string]string{"b": "\x1b[1m\n", "a\t": "1"}); got != "a =1,b= [1m " {
		t.Errorf("%q", got)
	}
}
