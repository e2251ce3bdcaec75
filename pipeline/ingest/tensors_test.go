package ingest

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/claimcheck"
	"github.com/morphogenetic/oona/intake"
	"github.com/morphogenetic/oona/schemas/avro"
)

// faultyStore is a real store in a directory, with faults.
type faultyStore struct {
	*claimcheck.Store
	fault func(context.Context) error // nil: none
	probe func(context.Context) error // nil: it is well
	fired atomic.Int64
}

const tensorLimit = 1 << 20

func newStore(t testing.TB) *faultyStore {
	t.Helper()
	store, err := claimcheck.OpenDirectory(t.TempDir(), "tensors", tensorLimit)
	if err != nil {
		t.Fatal(err)
	}
	return &faultyStore{Store: store}
}

// again returns the same store without faults. Tests share a store because a new one
// waits for the disk.
func (f *faultyStore) again() *faultyStore { return &faultyStore{Store: f.Store} }

func (f *faultyStore) breaks(ctx context.Context) error {
	if f.fault == nil {
		return nil
	}
	f.fired.Add(1)
	return f.fault(ctx)
}

func (f *faultyStore) Keep(ctx context.Context, content *claimcheck.Spooled) (oona.TensorClaim, bool, error) {
	if err := f.breaks(ctx); err != nil {
		return oona.TensorClaim{}, false, err
	}
	return f.Store.Keep(ctx, content)
}

func (f *faultyStore) Confirm(ctx context.Context, claim oona.TensorClaim) error {
	if err := f.breaks(ctx); err != nil {
		return err
	}
	return f.Store.Confirm(ctx, claim)
}

func (f *faultyStore) Probe(ctx context.Context, name string) error {
	if f.probe == nil {
		return nil
	}
	return f.probe(ctx)
}

func (f *faultyStore) has(t *testing.T, content []byte) bool {
	t.Helper()
	data, err := f.Bytes(t.Context(), f.Claim(content))
	if err != nil && !errors.Is(err, claimcheck.ErrNotFound) {
		t.Error(err)
	}
	return err == nil && bytes.Equal(data, content)
}

func newStageWithStore(t testing.TB, onBus *testBus, store TensorStore) *Stage {
	t.Helper()
	return newStage(t, onBus, func(c *Config) { c.Tensors = store })
}

func tensorBytes(seed byte, n int) []byte {
	data := bytes.Repeat([]byte{seed}, n)
	for i := range data {
		data[i] += byte(i)
	}
	return data
}

func inline(data []byte) oona.Tensor {
	return oona.Tensor{Name: "w", Seed: 1, DType: "uint8", Shape: []int64{int64(len(data))}, Data: data}
}

func claimed(claim oona.TensorClaim) oona.Tensor {
	return oona.Tensor{Name: "w", Seed: 1, DType: "uint8", Shape: []int64{claim.Size}, Claim: &claim}
}

func withTensors(tensors ...oona.Tensor) func(*oona.Frame) {
	return func(f *oona.Frame) { f.Tensors = tensors }
}

var (
	atThreshold = tensorBytes(1, 16<<10)
	aboveIt     = tensorBytes(2, 16<<10+1)
	larger      = tensorBytes(3, 100_000)
)

// Tensors above the threshold are in the store before the record is on the bus, and the
// record has their claims. The rest of the record is unchanged.
func TestLargeTensorsBecomeClaims(t *testing.T) {
	store := newStore(t)
	body := frames(withTensors(inline(atThreshold), inline(aboveIt)), nil, withTensors(inline(larger)))
	want := frames(withTensors(inline(atThreshold), claimed(store.Claim(aboveIt))), nil, withTensors(claimed(store.Claim(larger))))
	var singles [][]byte
	for rest := body; len(rest) > 0; {
		after, err := new(avro.FrameDecoder).Decode(rest, new(oona.Frame))
		if err != nil {
			t.Fatal(err)
		}
		singles = append(singles, rest[:len(rest)-len(after)])
		rest = after
	}
	onBus := newBus(t)
	onBus.before = func(string, []*message.Message) error {
		if !store.has(t, aboveIt) || !store.has(t, larger) {
			t.Error("published before the tensors are in the store")
		}
		return nil
	}
	s := newStageWithStore(t, onBus, store)
	for i, sent := range []struct {
		name, mediaType string
		body            []byte
	}{
		{"single objects", mediaAvro, body},
		{"container", mediaAvro, containerOf(t, singles...)},
		{"JSON", mediaJSON, []byte(jsonWithTensors(t, singles))},
	} {
		if w := post(s, sent.mediaType, sent.body); w.Code != http.StatusOK {
			t.Fatalf("%s: answer is %d %s", sent.name, w.Code, w.Body)
		}
		_, messages := onBus.published(t)
		var values []byte
		for _, m := range messages[3*i:] {
			values = append(values, m.Payload...)
		}
		if !bytes.Equal(values, want) {
			t.Errorf("%s: the records are not those with claims", sent.name)
		}
	}
	if got, want := s.Counts(), (Counts{Requests: 3, Frames: 9, Readings: 36, Claims: 6}); got != want {
		t.Errorf("counts are %+v, want %+v", got, want)
	}
	for result, want := range map[string]float64{tensorKept: 2, tensorKnown: 4, tensorFailed: 0} {
		if got := testutil.ToFloat64(s.counts.tensorsTotal.WithLabelValues(result)); got != want {
			t.Errorf("%g tensors are %s, want %g", got, result, want)
		}
	}
	if got := testutil.ToFloat64(s.counts.tensorBytesTotal); got != float64(len(aboveIt)+len(larger)) {
		t.Errorf("%g bytes were taken by the store", got)
	}
}

// jsonWithTensors encodes good frames with their tensors.
func jsonWithTensors(t *testing.T, singles [][]byte) string {
	t.Helper()
	var all []string
	for _, single := range singles {
		var f oona.Frame
		if _, err := new(avro.FrameDecoder).Decode(single, &f); err != nil {
			t.Fatal(err)
		}
		var tensors []string
		for _, tensor := range f.Tensors {
			tensors = append(tensors, fmt.Sprintf(`{"name":"w","seed_id":1,"dtype":"uint8","shape":[%d],"data":%q}`, len(tensor.Data), base64.StdEncoding.EncodeToString(tensor.Data)))
		}
		text := strings.Replace(goodJSON, `"sequence":0`, fmt.Sprintf(`"sequence":%d,"tensors":[%s]`, f.Sequence, strings.Join(tensors, ",")), 1)
		all = append(all, text)
	}
	return "[" + strings.Join(all, ",") + "]"
}

// Without a store no tensor is replaced.
func TestTensorsStayWithoutAStore(t *testing.T) {
	onBus := newBus(t)
	body := frames(withTensors(inline(larger)))
	if w := post(newStage(t, onBus, nil), mediaAvro, body); w.Code != http.StatusOK {
		t.Fatalf("answer is %d %s", w.Code, w.Body)
	}
	if _, messages := onBus.published(t); !bytes.Equal(messages[0].Payload, body) {
		t.Error("the record is not what was sent")
	}
}

func TestClaimsOfClients(t *testing.T) {
	store := newStore(t)
	there, _, err := store.CheckIn(t.Context(), bytes.NewReader(larger))
	if err != nil {
		t.Fatal(err)
	}
	change := func(do func(*oona.TensorClaim)) oona.TensorClaim {
		claim := there
		do(&claim)
		return claim
	}
	for name, c := range map[string]struct {
		claim  oona.TensorClaim
		store  TensorStore
		code   int
		reason intake.Reason
		field  string
	}{
		"good":         {there, store, 200, "", ""},
		"dangling":     {store.Claim(aboveIt), store, 400, reasonDangling, "tensors[1].data"},
		"other size":   {change(func(c *oona.TensorClaim) { c.Size-- }), store, 400, reasonMismatch, "tensors[1].data"},
		"other bucket": {change(func(c *oona.TensorClaim) { c.Bucket = "elsewhere" }), store, 400, intake.ReasonInvalid, "tensors[1].data.bucket"},
		"other key":    {change(func(c *oona.TensorClaim) { c.Key = "../" + c.Key }), store, 400, intake.ReasonInvalid, "tensors[1].data.key"},
		"other digest": {change(func(c *oona.TensorClaim) { c.SHA256[0]++ }), store, 400, intake.ReasonInvalid, "tensors[1].data.key"},
		"too large":    {change(func(c *oona.TensorClaim) { c.Size = tensorLimit + 1 }), store, 413, intake.ReasonTooLarge, "tensors[1].data.size"},
		"no store":     {there, nil, 400, intake.ReasonInvalid, "tensors[1].data"},
	} {
		t.Run(name, func(t *testing.T) {
			onBus := newBus(t)
			s := newStageWithStore(t, onBus, c.store)
			body := frames(nil, withTensors(inline([]byte{1}), claimed(c.claim)))
			w := post(s, mediaAvro, body)
			if w.Code != c.code {
				t.Fatalf("answer is %d %s", w.Code, w.Body)
			}
			calls, messages := onBus.published(t)
			if c.code == http.StatusOK {
				if got := append(bytes.Clone(messages[0].Payload), messages[1].Payload...); !bytes.Equal(got, body) {
					t.Error("the records are not what was sent")
				}
				return
			}
			p := decodeProblem(t, w)
			if calls != 0 || p.Type != "urn:oona:problem:"+string(c.reason) || p.Frame == nil || *p.Frame != 1 || p.Field != c.field {
				t.Errorf("%d calls of Publish, problem is %s", calls, w.Body)
			}
		})
	}
}

// An invalid request stores nothing, even if only its last frame is invalid.
func TestNothingIsStoredOfABadRequest(t *testing.T) {
	store, onBus := newStore(t), newBus(t)
	s := newStageWithStore(t, onBus, store)
	w := post(s, mediaAvro, frames(withTensors(inline(larger)), func(f *oona.Frame) { f.States[0] = 99 }))
	if calls, _ := onBus.published(t); w.Code != http.StatusBadRequest || calls != 0 {
		t.Errorf("answer is %d, %d calls of Publish", w.Code, calls)
	}
	if store.has(t, larger) {
		t.Error("the tensor of the good frame was stored")
	}
}

// If the store fails to store a tensor, its frame is not published. Frames that need no
// store are accepted.
func TestStoreFails(t *testing.T) {
	disk, tensors := newStore(t), byte(0)
	failing := func(err error) func(context.Context) error { return func(context.Context) error { return err } }
	for name, c := range map[string]struct {
		fault      func(context.Context) error
		reason     intake.Reason
		retryAfter string
	}{
		"down":       {failing(fmt.Errorf("dial: %w", claimcheck.ErrUnavailable)), reasonStore, "5"},
		"full":       {failing(fmt.Errorf("write: %w", claimcheck.ErrFull)), reasonStoreFull, "60"},
		"refused":    {failing(fmt.Errorf("probe: %w", claimcheck.ErrRefused)), reasonRefused, "60"},
		"no spool":   {failing(claimcheck.ErrSpool), reasonRefused, "60"},
		"full spool": {failing(fmt.Errorf("%w: %w", claimcheck.ErrSpool, claimcheck.ErrFull)), reasonStoreFull, "60"},
		"broken":     {failing(errors.New("input/output error")), reasonStore, "5"},
		"slow": {func(ctx context.Context) error {
			<-ctx.Done()
			return ctx.Err()
		}, reasonStore, "5"},
	} {
		for _, tensor := range []string{"inline", "claim"} {
			t.Run(name+" "+tensor, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					store, onBus := disk.again(), newBus(t)
					tensors++
					data := tensorBytes(tensors, 20_000) // different for each case
					content := inline(data)
					if tensor == "claim" {
						content = claimed(store.Claim(data))
						if _, _, err := store.CheckIn(t.Context(), bytes.NewReader(data)); err != nil {
							t.Fatal(err)
						}
					}
					store.fault = c.fault
					s := newStageWithStore(t, onBus, store)
					began := time.Now()
					w := post(s, mediaAvro, frames(nil, withTensors(content)))
					if took := time.Since(began); took > s.cfg.StoreTimeout {
						t.Errorf("answered after %s", took)
					}
					p := decodeProblem(t, w)
					if w.Code != http.StatusServiceUnavailable || w.Header().Get("Retry-After") != c.retryAfter || p.Type != "urn:oona:problem:"+string(c.reason) || p.Frame == nil || *p.Frame != 1 || p.Field != "tensors[0].data" {
						t.Errorf("answer is %d %s", w.Code, w.Body)
					}
					if c.reason == reasonRefused && strings.Contains(p.Detail, "send it again") {
						t.Errorf("detail is %q", p.Detail)
					}
					if store.fired.Load() == 0 {
						t.Error("the fault did not come")
					}
					if calls, _ := onBus.published(t); calls != 0 {
						t.Error("a frame is on the bus whose tensor is not known to be in the store")
					}
					if w := post(s, mediaAvro, frames(withTensors(inline(atThreshold)))); w.Code != http.StatusOK {
						t.Errorf("a frame that needs no store is answered %d %s", w.Code, w.Body)
					}
					store.fault = nil
					if w := post(s, mediaAvro, frames(nil, withTensors(content))); w.Code != http.StatusOK || !store.has(t, data) {
						t.Errorf("when the store is back the answer is %d %s", w.Code, w.Body)
					}
				})
			})
		}
	}
}

// If the store has stored other bytes than it was given, nothing is published.
func TestStoreKeepsOtherBytes(t *testing.T) {
	store, onBus := &otherBytes{faultyStore: newStore(t)}, newBus(t)
	w := post(newStageWithStore(t, onBus, store), mediaAvro, frames(withTensors(inline(larger))))
	if calls, _ := onBus.published(t); calls != 0 || w.Code != http.StatusBadRequest || !strings.Contains(w.Body.String(), string(reasonMismatch)) || store.fired.Load() != 1 {
		t.Errorf("%d calls of Publish, answer is %d %s", calls, w.Code, w.Body)
	}
}

type otherBytes struct{ *faultyStore }

func (o *otherBytes) Spool(ctx context.Context, content io.Reader) (*claimcheck.Spooled, error) {
	o.fired.Add(1)
	return o.faultyStore.Spool(ctx, io.MultiReader(content, strings.NewReader("x")))
}

// The number of requests that wait for the store is limited, and other requests are
// served.
func TestStoreHoldsUpFewRequests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store, onBus := newStore(t), newBus(t)
		store.fault = func(ctx context.Context) error {
			<-ctx.Done()
			time.Sleep(time.Millisecond) // the third ones have given up before
			return ctx.Err()
		}
		s := newStage(t, onBus, func(c *Config) { c.Tensors, c.MaxInFlight, c.MaxTensorRequests, c.ClientShare = store, 3, 2, 1 })
		waiting := make(chan int)
		for range 2 {
			go func() { waiting <- post(s, mediaAvro, frames(withTensors(inline(larger)))).Code }()
		}
		synctest.Wait()
		for _, w := range []int{
			post(s, mediaAvro, frames(withTensors(inline(larger)))).Code,
			put(s, larger).Code,
		} {
			if w != http.StatusTooManyRequests {
				t.Errorf("a third that wants the store is answered %d", w)
			}
		}
		if w := post(s, mediaAvro, frames(nil)); w.Code != http.StatusOK {
			t.Errorf("a frame that needs no store is answered %d", w.Code)
		}
		for range 2 {
			if code := <-waiting; code != http.StatusServiceUnavailable {
				t.Errorf("one that waited is answered %d", code)
			}
		}
	})
}

func TestMaxTensorRequestsLeavesRoom(t *testing.T) {
	cfg := DefaultConfig()
	cfg.Tensors, cfg.MaxTensorRequests = new(faultyStore), cfg.MaxInFlight
	err := cfg.Validate()
	if wrong, ok := errors.AsType[*oona.FieldError](err); !ok || wrong.Field != "--max-tensor-requests" {
		t.Errorf("error is %v", err)
	}
}

func digestHeader(content []byte) string {
	digest := new(claimcheck.Store).Claim(content).SHA256
	return "sha-256=:" + base64.StdEncoding.EncodeToString(digest[:]) + ":"
}

func claimJSON(claim oona.TensorClaim) string {
	return fmt.Sprintf(`{"bucket":%q,"key":%q,"size":%d,"sha256":%q}`, claim.Bucket, claim.Key, claim.Size, hex.EncodeToString(claim.SHA256[:]))
}
