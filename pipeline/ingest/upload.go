package ingest

import (
	"context"
	"encoding/hex"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/claimcheck"
	"github.com/morphogenetic/oona/intake"
	"github.com/morphogenetic/oona/internal/access"
)

// serveTensors stores one tensor and answers with its claim, in the format that frames use.
// The status is 201 if the tensor is new, and 200 if the store had it already.
func (s *Stage) serveTensors(w http.ResponseWriter, r *http.Request, who *access.Identity, began time.Time, trace *requestTrace) {
	claim, fresh, refused := s.takeTensor(w, r, who)
	status := http.StatusOK
	if fresh {
		status = http.StatusCreated
	}
	s.answer(w, r, who, began, trace, status, struct {
		Bucket string `json:"bucket"`
		Key    string `json:"key"`
		Size   int64  `json:"size"`
		SHA256 string `json:"sha256"`
	}{claim.Bucket, claim.Key, claim.Size, hex.EncodeToString(claim.SHA256[:])}, refused)
}

func (s *Stage) takeTensor(w http.ResponseWriter, r *http.Request, who *access.Identity) (_ oona.TensorClaim, fresh bool, _ *intake.Refusal) {
	var none oona.TensorClaim
	if refused := s.tensorRefusal(w, r, who); refused != nil {
		return none, false, refused
	}
	declared, refused := digestsOf(r.Header)
	if refused != nil {
		return none, false, refused
	}
	// This replaces the write timeout for frames. The recorder of a test has no deadline.
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(memoryWait + 2*s.cfg.TensorTimeout + s.cfg.StoreTimeout + 5*time.Second))
	in := readBody(w, r.Body, clientOf(r), s.cfg.TensorTimeout)
	in.budget, in.tensor, in.chunked = &s.spools, true, r.ContentLength < 0
	in.held = s.tensors.lease(r.Context(), in.by)
	in.held.yields(in.interrupt)
	defer in.free()
	var content io.Reader = in
	for _, digest := range declared {
		content = claimcheck.Verify(content, digest)
	}
	// The store must not stop when the client closes its side of the connection, because a client
	// that has sent everything may do that. Reading the body shows whether the client is gone.
	ctx := context.WithoutCancel(r.Context())
	spooled, err := s.cfg.Tensors.Spool(ctx, content)
	switch {
	case in.err != nil:
		in.hangUp(w)
		return none, false, s.bodyProblem(in)
	case err != nil:
		return none, false, s.storeProblem(err, ofTensor)
	}
	defer spooled.Close()
	return s.storeUpload(ctx, in.by, spooled)
}

// storeUpload stores a tensor that was received. If no slot is free, it waits for one, because it
// would cost more to send the tensor again.
func (s *Stage) storeUpload(ctx context.Context, by *client, spooled *claimcheck.Spooled) (claim oona.TensorClaim, fresh bool, _ *intake.Refusal) {
	if by.enter(ctx, forStore, s.cfg.StoreTimeout) != entered {
		return claim, false, s.storingOverloaded()
	}
	defer s.endStoring(by, time.Now())
	ctx, cancel := context.WithTimeout(ctx, s.cfg.TensorTimeout)
	defer cancel()
	defer context.AfterFunc(s.cut, cancel)()
	claim, fresh, err := s.cfg.Tensors.Keep(ctx, spooled)
	s.counts.stored(claim.Size, fresh, err)
	if err != nil {
		return claim, false, s.storeProblem(err, ofTensor)
	}
	return claim, fresh, nil
}

// tensorRefusal refuses an upload because of its method, its headers or its client.
func (s *Stage) tensorRefusal(w http.ResponseWriter, r *http.Request, who *access.Identity) *intake.Refusal {
	if r.Method != http.MethodPut {
		w.Header().Set("Allow", http.MethodPut)
		return intake.Refuse(reasonMethod, "tensors are sent with PUT, not %s", r.Method)
	}
	if refused := lacks(who, access.Tensors); refused != nil {
		return refused
	}
	if s.cfg.Tensors == nil {
		return intake.Refuse(reasonNoStore, "this ingest has no tensor store (--tensor-store); send tensors in their frames")
	}
	if part := r.Header.Get("Content-Range"); part != "" { // RFC 9110, section 14.5
		return intake.Refuse(reasonHeader, "Content-Range is %.100q; send the whole tensor in one request", part)
	}
	if coding := strings.Join(r.Header.Values("Content-Encoding"), ", "); coding != "" && !strings.EqualFold(coding, "identity") {
		w.Header().Set("Accept-Encoding", "identity")
		return intake.Refuse(reasonMediaType, "Content-Encoding is %.64q; send tensors without Content-Encoding, because a tensor is identified by the bytes of the body", coding)
	}
	if err := s.cfg.Tensors.CheckSize(r.ContentLength); err != nil {
		return s.storeProblem(err, ofTensor)
	}
	return nil
}
