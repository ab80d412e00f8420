package picture

// span says from which two source pixels, and in what mixture, one target pixel comes.
type span struct {
	first, second int
	part          int64 // of the second, in units of 1/(2*n) for n target pixels
}

// spans returns the source pixels of n target pixels over length source pixels that
// begin at from. The centre of target pixel i lies at ((2i+1)*length - n) / 2n of the
// source, counted between centres; beyond the outermost centres the outermost pixel
// counts.
func spans(method string, n, from, length int) []span {
	list := make([]span, n)
	size, count := int64(length), 2*int64(n)
	for i := range list {
		centre := int64(2*i+1) * size
		if method == Nearest {
			at := from + int(centre/count)
			list[i] = span{at, at, 0}
			continue
		}
		centre = max(centre-int64(n), 0)
		first := int(centre / count)
		s := span{first, first + 1, centre % count}
		if s.second >= length {
			s = span{length - 1, length - 1, 0}
		}
		s.first, s.second = s.first+from, s.second+from
		list[i] = s
	}
	return list
}

// used lists the source pixels that spans name, rising, and counts the spans in them
// instead: pixels that nobody looks at need not be converted.
func used(spans []span) []int {
	var list []int
	for i, s := range spans { // both ends rise from span to span
		for _, at := range []int{s.first, s.second} {
			if n := len(list); n == 0 || list[n-1] < at {
				list = append(list, at)
			}
		}
		n := len(list) - 1
		spans[i].second = n
		spans[i].first = n
		if s.first != s.second {
			spans[i].first = n - 1
		}
	}
	return list
}

// mix returns the pixels of the target. A mixture is exact, and rounded once, half up:
// the sum of the four pixels by their parts, over 2*width * 2*height.
func (r *Rule) mix(p *Picture, at Placement, columns, rows []span) []byte {
	channels := p.Channels
	out := make([]byte, r.Width*r.Height*channels)
	if r.Fill != 0 && (at.Width < r.Width || at.Height < r.Height) {
		for i := range out {
			out[i] = r.Fill
		}
	}
	w, h := int64(2*at.Width), int64(2*at.Height)
	for y, row := range rows {
		upper, lower := p.Pix[row.first*p.Width*channels:], p.Pix[row.second*p.Width*channels:]
		to := out[((at.Y+y)*r.Width+at.X)*channels:]
		for x, c := range columns {
			a, b := c.first*channels, c.second*channels
			for k := range channels {
				top := (w-c.part)*int64(upper[a+k]) + c.part*int64(upper[b+k])
				bottom := (w-c.part)*int64(lower[a+k]) + c.part*int64(lower[b+k])
				to[x*channels+k] = byte(((h-row.part)*top + row.part*bottom + w*h/2) / (w * h))
			}
		}
	}
	return out
}
