package oona

import (
	"errors"
	"strings"
	"testing"
)

func TestCheckID(t *testing.T) {
	for _, tt := range []struct {
		name, id, want string // want: the reason; empty: accepted
	}{
		{"letter", "a", ""},
		{"all kinds of byte", "AZaz09._:-", ""},
		{"longest", strings.Repeat("x", 128), ""},
		{"empty", "", "is empty; give 1 to 128 of A-Z a-z 0-9 . _ : -"},
		{"too long", strings.Repeat("x", 129), "has 129 bytes; at most 128 are allowed"},
		{"newline", "run\n1", `has '\n' at position 3; allowed are A-Z a-z 0-9 . _ : -`},
		{"trailing newline", "run\n", `has '\n' at position 3; allowed are A-Z a-z 0-9 . _ : -`},
		{"double quote", `"run"`, `has '"' at position 0; allowed are A-Z a-z 0-9 . _ : -`},
		{"single quote", "it's", `has '\'' at position 2; allowed are A-Z a-z 0-9 . _ : -`},
		{"backslash", `a\b`, `has '\\' at position 1; allowed are A-Z a-z 0-9 . _ : -`},
		{"slash", "a/b", "has '/' at position 1; allowed are A-Z a-z 0-9 . _ : -"},
		{"space", "a b", "has ' ' at position 1; allowed are A-Z a-z 0-9 . _ : -"},
		{"zero byte", "a\x00", `has '\x00' at position 1; allowed are A-Z a-z 0-9 . _ : -`},
		{"letter beyond ASCII", "läufer", "has 'ä' at position 1; allowed are A-Z a-z 0-9 . _ : -"},
		{"not UTF-8", "a\xff", "has '\ufffd' at position 1; allowed are A-Z a-z 0-9 . _ : -"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			err := CheckID("run_id", tt.id)
			if tt.want == "" {
				if err != nil {
					t.Fatalf("CheckID(%q) = %v, want no error", tt.id, err)
				}
				return
			}
			var field *FieldError
			if !errors.As(err, &field) {
				t.Fatalf("CheckID(%q) = %v, want a *FieldError", tt.id, err)
			}
			if field.Field != "run_id" || field.Reason != tt.want {
				t.Errorf("CheckID(%q): %s\nwant run_id: %s", tt.id, err, tt.want)
			}
		})
	}
}

// TestCheckIDEveryByte compares with the set of bytes as the contract lists it.
func TestCheckIDEveryByte(t *testing.T) {
	const allowed = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._:-"
	for c := range 256 {
		id := string([]byte{byte(c)})
		if got, want := CheckID("id", id) == nil, strings.Contains(allowed, id); got != want {
			t.Errorf("CheckID(%q) accepts: %t, want %t", id, got, want)
		}
	}
}
