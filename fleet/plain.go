package fleet

import (
	"strings"
	"unicode"
)

// Plain is a text of others, which may say anything, on one line and without what
// moves a terminal's cursor or changes its colours.
func Plain(s string) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, s)
}
