package access

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
)

// tokenPrefix is in front of each token that NewToken makes, so that programs that look
// for secrets in files recognise it.
const tokenPrefix = "oona_"

// Hash is the SHA-256 of a token.
type Hash [sha256.Size]byte

func (h Hash) String() string { return hex.EncodeToString(h[:]) }

// HashOf returns the hash of a token.
func HashOf(token string) Hash { return sha256.Sum256([]byte(token)) }

// NewToken returns a token of 32 random bytes.
func NewToken() string {
	var secret [32]byte
	_, _ = rand.Read(secret[:]) // it never fails
	return tokenPrefix + base64.RawURLEncoding.EncodeToString(secret[:])
}
