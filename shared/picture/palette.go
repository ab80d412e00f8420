package picture

import "image/color"

// plain returns a palette's colour without its transparency.
func plain(c color.Color) (r, g, b byte) {
	if n, ok := c.(color.NRGBA); ok {
		return n.R, n.G, n.B
	}
	n := color.NRGBAModel.Convert(c).(color.NRGBA)
	return n.R, n.G, n.B
}
