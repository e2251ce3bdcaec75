// Package access says who may do what over HTTP: which clients may send frames and
// tensors to ingest, and read the metrics and profiles of a worker.
//
// An access file lists identities. A client shows that it is one of them with a token
// (RFC 6750) or with a certificate that the TLS server has verified:
//
//	identities:
//	  - name: trainers
//	    tokens: [f5a232f555fe26cb926d5a7b0b3fd81fc3bd627d5f23ee865b65dc6b1b1d2780]
//	    certificates: [trainer.example.com]
//	    runs: ["exp-*"]
//	    producers: ["*"]
//	    roles: [frames, tensors]
//
// The file has the SHA-256 of each token, so that it does not give the tokens away. A
// token is 32 random bytes, which cannot be found from their hash, so a slow hash for
// passwords is not needed.
package access
