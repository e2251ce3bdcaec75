package ingest

import (
	"context"
	"encoding/hex"
	"errors"
	"io"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/claimcheck"
)

// serveTensors takes one tensor and answers with its claim, as a frame takes it:
// 201 where it is new, 200 where the store had it.
func (s *Stage) serveTensors(w http.ResponseWriter, r *http.Request) {
	began := time.Now()
	claim, fresh, refusal := s.takeTensor(w, r)
	status := http.StatusOK
	if fresh {
		status = http.StatusCreated
	}
	s.answer(w, r, began, status, struct {
		Bucket string `json:"bucket"`
		Key    string `json:"key"`
		Size   int64  `json:"size"`
		SHA256 string `json:"sha256"`
	}{claim.Bucket, claim.Key, claim.Size, hex.EncodeToString(claim.SHA256[:])}, refusal)
}

func (s *Stage) takeTensor(w http.ResponseWriter, r *http.Request) (_ oona.TensorClaim, fresh bool, _ *problem) {
	var none oona.TensorClaim
	if refusal := s.tensorRefusal(r); refusal != nil {
		return none, false, refusal
	}
	declared, refusal := digestsOf(r.Header)
	if refusal != nil {
		return none, false, refusal
	}
	if !s.beginStoring() {
		return none, false, s.storingOverloaded()
	}
	defer s.endStoring(time.Now())
	upload, err := s.startUpload(w, r)
	if err != nil {
		return none, false, newProblem(http.StatusInternalServerError, reasonRead, "the time to send a tensor cannot be set: %v", err)
	}
	ctx, cancel := context.WithTimeout(r.Context(), 2*s.cfg.TensorTimeout)
	defer cancel()
	var content io.Reader = upload
	for _, digest := range declared {
		content = claimcheck.Verify(content, digest)
	}
	claim, fresh, err := s.cfg.Tensors.CheckIn(ctx, content)
	s.metrics.stored(claim.Size, fresh, err)
	switch {
	case upload.err != nil:
		return none, false, s.uploadProblem(upload.err)
	case err != nil:
		return none, false, s.storeProblem(err)
	}
	return claim, fresh, nil
}

// tensorRefusal is what can be said before the body is looked at.
func (s *Stage) tensorRefusal(r *http.Request) *problem {
	if r.Method != http.MethodPut {
		return newProblem(http.StatusMethodNotAllowed, reasonMethod, "tensors are taken by PUT, not %s", r.Method).with("Allow", http.MethodPut)
	}
	if s.cfg.Tensors == nil {
		return newProblem(http.StatusNotImplemented, reasonNoStore, "this ingest has no tensor store (--tensor-store); send tensors in their frames")
	}
	if coding := r.Header.Get("Content-Encoding"); coding != "" && !strings.EqualFold(coding, "identity") {
		return newProblem(http.StatusUnsupportedMediaType, reasonMediaType, "Content-Encoding is %.64q; a tensor is kept, and known, by the bytes that are sent: send them as they are", coding).with("Accept-Encoding", "identity")
	}
	if err := s.cfg.Tensors.CheckSize(r.ContentLength); err != nil {
		return s.storeProblem(err)
	}
	return nil
}

// upload is the body of a tensor. It remembers its own errors, so that they are
// not taken for the store's, and gives the connection its time.
type upload struct {
	wire
	connection *http.ResponseController
}

// startUpload gives the client the tensor timeout to send the body, in place of
// the read timeout of frames, and the answer as long again.
func (s *Stage) startUpload(w http.ResponseWriter, r *http.Request) (*upload, error) {
	u := &upload{wire{Reader: r.Body}, http.NewResponseController(w)}
	now := time.Now()
	err := errors.Join(
		u.connection.SetReadDeadline(now.Add(s.cfg.TensorTimeout)),
		u.connection.SetWriteDeadline(now.Add(2*s.cfg.TensorTimeout+5*time.Second)))
	if errors.Is(err, http.ErrNotSupported) {
		err = nil // not a connection: a test's recorder
	}
	return u, err
}

func (u *upload) Read(p []byte) (int, error) {
	n, err := u.wire.Read(p)
	if errors.Is(err, io.EOF) {
		// The store has its own time: a deadline that passes meanwhile would
		// look like a client that is gone.
		_ = u.connection.SetReadDeadline(time.Time{})
	}
	return n, err
}

func (s *Stage) uploadProblem(err error) *problem {
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return newProblem(http.StatusRequestTimeout, reasonRead, "the tensor had not arrived within %s", s.cfg.TensorTimeout)
	}
	return newProblem(http.StatusBadRequest, reasonRead, "the tensor ended early: %v", err)
}
