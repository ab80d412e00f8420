package sketch

import "math"

// Ways in which an output holds its classes, as contracts name them.
const (
	Softmax = "softmax" // probabilities that add up to one
	Sigmoid = "sigmoid" // a probability for each class by itself
	Logits  = "logits"  // what a softmax would make probabilities of
)

// Certainty is how sure an answer is. Best is the index of the highest value and
// Score that value, unchanged. With OK, Entropy is that of the probabilities over
// its maximum, 0 (sure) to 1 (any class as well), and Margin the distance of the
// two highest probabilities. For Sigmoid, Entropy is that of the best class being
// right or not, and Margin of a single class the distance from its being wrong.
type Certainty struct {
	Best            int
	Score           float64
	OK              bool
	Entropy, Margin float64
}

// CertaintyOf measures an answer. With an unknown kind the values must look like
// probabilities to have an entropy. Best is -1 when there is no number.
func CertaintyOf(values []float64, kind string) Certainty {
	c := Certainty{Best: -1}
	second, lowest, total := math.Inf(-1), math.Inf(1), 0.0
	for i, v := range values {
		if math.IsNaN(v) {
			continue
		}
		total += v
		lowest = min(lowest, v)
		switch {
		case c.Best < 0 || v > c.Score:
			if c.Best >= 0 {
				second = c.Score
			}
			c.Best, c.Score = i, v
		case v > second:
			second = v
		}
	}
	if c.Best < 0 || math.IsInf(total, 0) || math.IsNaN(total) {
		return c
	}
	switch {
	case kind == Logits:
		c.softmax(values, second)
	case kind == Sigmoid:
		c.sigmoid(second, len(values))
	case kind == Softmax || total > 0.98 && total < 1.02:
		if lowest >= -0.01 && total > 0 {
			c.probabilities(values, second, total)
		}
	}
	c.OK = c.OK && !math.IsNaN(c.Entropy) && !math.IsNaN(c.Margin)
	return c
}

// least is the probability below which a class adds nothing that a bin could show.
const least = 1e-7

func (c *Certainty) probabilities(values []float64, second, total float64) {
	if len(values) < 2 {
		return
	}
	h := 0.0
	for _, v := range values {
		if p := v / total; p > least {
			h -= p * math.Log(p)
		}
	}
	c.set(h/math.Log(float64(len(values))), (c.Score-max(second, 0))/total)
}

func (c *Certainty) softmax(values []float64, second float64) {
	if len(values) < 2 {
		return
	}
	s, weighted := 0.0, 0.0
	for _, v := range values {
		if d := v - c.Score; d > -17 { // e^-17 is below least
			e := math.Exp(d)
			s += e
			weighted += e * d
		}
	}
	h := math.Log(s) - weighted/s
	c.set(h/math.Log(float64(len(values))), (1-math.Exp(second-c.Score))/s)
}

func (c *Certainty) sigmoid(second float64, n int) {
	p := min(max(c.Score, 0), 1)
	h := 0.0
	if p > least && p < 1-least {
		h = -(p*math.Log2(p) + (1-p)*math.Log2(1-p))
	}
	margin := math.Abs(2*p - 1)
	if n > 1 {
		margin = p - max(second, 0)
	}
	c.set(h, margin)
}

func (c *Certainty) set(entropy, margin float64) {
	c.OK, c.Entropy, c.Margin = true, min(max(entropy, 0), 1), min(max(margin, 0), 1)
}
