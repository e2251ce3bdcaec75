package main

import (
	"crypto/sha256"
	"encoding/hex"
	"regexp"
	"testing"
)

// The hash that is printed is the one of the token.
func TestKeysToken(t *testing.T) {
	status, out, messages := run(t, "keys", "token")
	token := regexp.MustCompile(`(?m)^oona_[\w-]{43}$`).FindString(out)
	hash := regexp.MustCompile(`(?m)^ +- ([0-9a-f]{64})$`).FindStringSubmatch(out)
	if status != 0 || messages != "" || token == "" || hash == nil {
		t.Fatalf("status %d, messages %q, output\n%s", status, messages, out)
	}
	if sum := sha256.Sum256([]byte(token)); hash[1] != hex.EncodeToString(sum[:]) {
		t.Errorf("the hash of %s is %x, and not %s", token, sum, hash[1])
	}
	if _, again, _ := run(t, "keys", "token"); again == out {
		t.Error("two tokens are the same")
	}
}
