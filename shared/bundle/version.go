package bundle

import (
	"regexp"
	"strconv"
	"strings"
)

var (
	nameForm    = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)
	versionForm = regexp.MustCompile(`^(0|[1-9][0-9]{0,8})\.(0|[1-9][0-9]{0,8})\.(0|[1-9][0-9]{0,8})(-[0-9A-Za-z-]+(\.[0-9A-Za-z-]+)*)?$`)
	numbersForm = regexp.MustCompile(`^[0-9]{1,9}(\.[0-9]{1,9}){0,3}$`)
)

// ValidName says whether s can name a model: 1 to 63 lower-case letters, digits
// and dashes, no dash at either end.
func ValidName(s string) bool { return nameForm.MatchString(s) }

// ValidVersion says whether s is a semantic version of at most 64 bytes without
// build metadata.
func ValidVersion(s string) bool { return len(s) <= 64 && versionForm.MatchString(s) }

// MetBy says whether a runtime offers what a model needs: the same name and at
// least the lowest version. A model without a need is met by anything.
func (n *RuntimeNeed) MetBy(a *RuntimeABI) bool {
	if n == nil {
		return true
	}
	return a != nil && n.Name == a.Name && CompareNumbers(a.Version, n.Min) >= 0
}

// CompareNumbers compares dotted numbers ("2.1.6", "2.34"); absent parts are
// zero, whatever follows a dash is ignored. It returns -1, 0 or 1.
func CompareNumbers(a, b string) int {
	x, y := numbers(a), numbers(b)
	for i := range x {
		if x[i] != y[i] {
			if x[i] < y[i] {
				return -1
			}
			return 1
		}
	}
	return 0
}

func numbers(s string) (list [4]int) {
	s, _, _ = strings.Cut(s, "-")
	for i, part := range strings.SplitN(s, ".", len(list)) {
		list[i], _ = strconv.Atoi(part)
	}
	return list
}
