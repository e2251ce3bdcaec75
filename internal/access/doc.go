// Package access says who may do what over HTTP: which clients may send frames and
// tensors to ingest, and read the metrics and profiles of a worker.
//
// An access file lists identities. A client shows that it is one of them with a token
// (RFC 6750) or with a certificate that the TLS server has verified:
//
//	identities:
//	  - name: trainers
//	    tokens: [9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08]
//	    certificates: [trainer.example.com]
//	    runs: ["exp-*"]
//	    producers: ["*"]
//	    roles: [frames, tensors]
//
// The file has the SHA-256 of each token, so that it does not give the tokens away. A
// token is 32 random bytes, which cannot be found from their hash, so a slow hash for
// passwords is not needed.
package access
