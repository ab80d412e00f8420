package where

import (
	"math"
	"strings"
	"testing"
)

func TestMatch(t *testing.T) {
	nan := math.NaN()
	sure := Answer{Feedback: None, Class: 7, ClassName: "seven", Score: 0.9, Entropy: 0.1, Latency: 12}
	bad := Answer{Feedback: Wrong, Class: 2, ClassName: "twenty two", Score: 0.3, Entropy: nan, Latency: 200}
	bare := Answer{Feedback: Right, Class: -1, Score: nan, Entropy: nan, Latency: 1}
	for text, want := range map[string][3]bool{
		"feedback=wrong or score<0.5":               {false, true, false},
		"feedback = wrong and score < 0.5":          {false, true, false},
		"feedback!=none":                            {false, true, true},
		"feedback=none or feedback=right":           {true, false, true},
		"class=seven":                               {true, false, false},
		"class=7":                                   {true, false, false},
		"class=='twenty two'":                       {false, true, false},
		"class!=seven":                              {false, true, false}, // bare has no class
		"not class=seven":                           {false, true, true},
		"not (class=seven or latency>=200)":         {false, false, true},
		"score>0.5 or latency<=1":                   {true, false, true},
		"entropy<0.5":                               {true, false, false},
		"entropy>=0.5":                              {false, false, false},
		"score=0.9":                                 {true, false, false},
		"score!=0.9":                                {false, true, false},
		"latency>1e1 and score>-1 and not score>.5": {false, true, false},
		"score<.5 or class=7 and latency<10":        {false, true, false}, // and binds closer
		"(score<.5 or class=7) and latency>10":      {true, true, false},
		"not not score<0.5":                         {false, true, false},
	} {
		e, err := Parse(text)
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		if got := [3]bool{e.Match(sure), e.Match(bad), e.Match(bare)}; got != want {
			t.Errorf("%s: %v, want %v", text, got, want)
		}
		if e.Feedback() != strings.Contains(text, "feedback") {
			t.Errorf("%s: asks for feedback: %v", text, e.Feedback())
		}
	}
	if (Expr{}).Match(sure) {
		t.Error("no condition holds")
	}
}

func TestRefused(t *testing.T) {
	for text, want := range map[string]string{
		"":                                     "a comparison like",
		"score":                                "a comparison like",
		"score<":                               "a comparison like",
		"<0.5":                                 "a comparison like",
		"score<0.5 score>0.1":                  "follows its end",
		"score<0.5 &&":                         "is not understood",
		"!score<0.5":                           "! is written not",
		"(score<0.5":                           "a ) is missing",
		"score<0.5)":                           "follows its end",
		"score<many":                           "with a number",
		"score<NaN":                            "with a number",
		"score<1e999":                          "with a number",
		"score<'0.5'":                          "with a number",
		"class<7":                              "compares with = and !=",
		"class=and":                            "a value is wanted",
		"class=''":                             "a name or an index",
		"class='a":                             "is not closed",
		"class='a\"'":                          "no quotes",
		"feedback=maybe":                       "none, right or wrong",
		"size>5":                               "there is no field",
		"'score'<0.5":                          "a comparison like",
		"score<0.5;":                           "is not understood",
		"score<\xff":                           "UTF-8",
		strings.Repeat("(", 17) + "score<1":    "levels deep",
		strings.Repeat("not ", 20) + "score<1": "levels deep",
		"score<1" + strings.Repeat(" or score<1", 32): "more than 32",
		strings.Repeat(" ", 513):                      "longer than",
	} {
		if _, err := Parse(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
}

// FuzzParse reads anything: no panic, and what is read means the same when its text
// is read again.
func FuzzParse(f *testing.F) {
	for _, s := range []string{"feedback=wrong or score<0.5", "not (class='a b' and latency>=1e3)", "class='or'", "((score!=-.5))", "class=ünï and entropy>0"} {
		f.Add(s)
	}
	answers := []Answer{{Feedback: None, Class: -1, Score: math.NaN(), Entropy: math.NaN()}, {Feedback: Wrong, Class: 3, ClassName: "or", Score: 0.4, Entropy: 0.9, Latency: 1000}, {Feedback: Right, Class: 0, Score: 1}}
	f.Fuzz(func(t *testing.T, text string) {
		e, err := Parse(text)
		if err != nil {
			return
		}
		if len(e.String()) > MaxLength {
			return // parentheses made it longer than is read
		}
		again, err := Parse(e.String())
		if err != nil && strings.Contains(err.Error(), "levels deep") {
			return
		}
		if err != nil || again.String() != e.String() || again.Feedback() != e.Feedback() {
			t.Fatalf("%q became %q: %v", text, e.String(), err)
		}
		for _, a := range answers {
			if e.Match(a) != again.Match(a) {
				t.Fatalf("%q and %q differ for %+v", text, e.String(), a)
			}
		}
	})
}
