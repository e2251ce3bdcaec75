package ingest

import (
	"crypto/sha256"
	"encoding/base64"
	"net/http"
	"strings"

	"github.com/morphogenetic/oona/intake"
)

// digestsOf returns the SHA-256 digests of the body that the headers declare. Content-Digest and
// Repr-Digest (RFC 9530) mean the same if there is no content coding. Digests of other
// algorithms are ignored, as the RFC allows.
func digestsOf(h http.Header) (digests [][sha256.Size]byte, _ *intake.Refusal) {
	for _, name := range []string{"Content-Digest", "Repr-Digest"} {
		for member := range strings.SplitSeq(strings.Join(h.Values(name), ","), ",") {
			algorithm, value, _ := strings.Cut(strings.TrimSpace(member), "=")
			if algorithm != "sha-256" {
				continue
			}
			value, _, _ = strings.Cut(value, ";") // no parameters are known
			digest, ok := byteSequence(strings.TrimRight(value, " "))
			if !ok {
				return nil, intake.Refuse(reasonHeader, "the header %s is %.100q; write the digest as sha-256=:BASE64:, with 32 bytes in base64", name, member)
			}
			digests = append(digests, digest)
		}
	}
	return digests, nil
}

// byteSequence parses a byte sequence of RFC 9651, section 3.3.5.
func byteSequence(text string) (digest [sha256.Size]byte, ok bool) {
	text, begins := strings.CutPrefix(text, ":")
	text, ends := strings.CutSuffix(text, ":")
	data, err := base64.StdEncoding.DecodeString(text)
	if !begins || !ends || err != nil || len(data) != sha256.Size {
		return digest, false
	}
	return [sha256.Size]byte(data), true
}
