package wire

import (
	"errors"
	"strings"
	"unicode"
	"unicode/utf8"
)

// CheckFacts bounds what a device tells of itself: at most 64 facts with a name of 1
// to 63 and a value of at most 256 bytes, of characters that show as themselves. No
// line break is one, nor what a terminal acts on.
func CheckFacts(facts map[string]string) error {
	if len(facts) > 64 {
		return errors.New("facts: at most 64")
	}
	for k, v := range facts {
		if len(k) == 0 || len(k) > 63 || len(v) > 256 {
			return errors.New("facts: key of 1 to 63 and value of at most 256 bytes wanted")
		}
		if !printable(k) || !printable(v) {
			return errors.New("facts: printable characters only")
		}
	}
	return nil
}

func printable(s string) bool {
	return utf8.ValidString(s) && !strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) })
}
