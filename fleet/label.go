package fleet

import "regexp"

var (
	labelKey   = regexp.MustCompile(`^[a-z0-9]([a-z0-9._/-]{0,61}[a-z0-9])?$`)
	labelValue = regexp.MustCompile(`^([A-Za-z0-9]([A-Za-z0-9 ._+/-]{0,61}[A-Za-z0-9])?)?$`)
)

// CheckLabel refuses a label that no selector could name.
func CheckLabel(key, value string) error {
	if !labelKey.MatchString(key) {
		return ErrLabel.With("label key %q: up to 63 of a-z, 0-9, '.', '_', '/' and '-' wanted", key)
	}
	if !labelValue.MatchString(value) {
		return ErrLabel.With("label %s: value %q: up to 63 letters, digits, spaces and '._+/-' wanted", key, value)
	}
	return nil
}
