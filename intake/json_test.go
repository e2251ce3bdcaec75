package intake

import "testing"

// halfSurrogate finds half of a surrogate pair wherever it is in a string, and finds nothing else.
func TestHalfSurrogate(t *testing.T) {
	for quoted, want := range map[string]string{
		`"\ud83d\ude00"`:       "",
		`"\uD83D\uDE00 a"`:     "",
		`"\ufffd"`:             "",
		`"\\ud83d"`:            "", // a backslash, and letters
		`"\\\\ud83d\n"`:        "",
		`"\ud83d"`:             `\ud83d`,
		`"\uDe00"`:             `\uDe00`,
		`"\ude00\ud83d"`:       `\ude00`, // in the wrong order
		`"\ud83dxude00"`:       `\ud83d`,
		`"\ud83d\n\ude00"`:     `\ud83d`,
		`"\ud83d\u0041"`:       `\ud83d`,
		`"\ud83d\ud83d\ude00"`: `\ud83d`,
		`"\ud83d\ude00\udbff"`: `\udbff`,
		`"\\\ud83d"`:           `\ud83d`,
	} {
		if got := halfSurrogate([]byte(quoted)); got != want {
			t.Errorf("%s: %q, want %q", quoted, got, want)
		}
	}
}
