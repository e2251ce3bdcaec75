package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/bus/kafka"
	"github.com/morphogenetic/oona/claimcheck"
	"github.com/morphogenetic/oona/replay/manifest"
	"github.com/morphogenetic/oona/schemas/avro"
)

// storing is a broker with records that refer to tensors in a directory.
type storing struct {
	*watched
	dir   string
	store *claimcheck.Store
	flags []string
	sent  int64
}

func newStoring(t *testing.T) *storing {
	t.Helper()
	s := &storing{watched: newWatched(t), dir: t.TempDir()}
	b := kafka.New(kafka.Config{Brokers: []string{s.brokers}, ClientID: "test", Settle: shortSettle}, nil)
	_, err := b.Apply(t.Context(), []oona.TopicSpec{s.topics.RedrivesSpec()})
	if err != nil {
		t.Fatal(err)
	}
	if s.store, err = claimcheck.OpenDirectory(s.dir, "kasmina-tensors", 1<<20); err != nil {
		t.Fatal(err)
	}
	s.flags = []string{"--brokers", s.brokers, "--tensor-store=directory", "--tensor-directory", s.dir}
	return s
}

// tensor puts a tensor into the store that was last sent some days ago.
func (s *storing) tensor(content string, days int) oona.TensorClaim {
	s.t.Helper()
	claim, _, err := s.store.CheckIn(s.t.Context(), strings.NewReader(content))
	if err != nil {
		s.t.Fatal(err)
	}
	if err := s.age(claim, days); err != nil {
		s.t.Fatal(err)
	}
	return claim
}

// age lets a tensor look as if it had last been sent some days ago.
func (s *storing) age(claim oona.TensorClaim, days int) error {
	at := time.Now().Add(-time.Duration(days) * 24 * time.Hour)
	return os.Chtimes(s.file(claim), at, at)
}

func (s *storing) file(claim oona.TensorClaim) string {
	return filepath.Join(s.dir, filepath.FromSlash(claim.Key))
}

// frame is a frame that refers to claims.
func (s *storing) frame(claims ...oona.TensorClaim) []byte {
	s.sent++
	f := watchedFrame("r", "enc.0", s.sent)
	for _, claim := range claims {
		f.Tensors = append(f.Tensors, oona.Tensor{Name: "weights", Seed: 3, DType: "uint8", Shape: []int64{2, claim.Size / 2}, Claim: &claim})
	}
	return avro.AppendFrame(nil, f)
}

// tensors runs a command. The exit status must be as wanted.
func (s *storing) tensors(want int, args ...string) (out, messages string) {
	s.t.Helper()
	status, out, messages := run(s.t, slices.Concat([]string{"tensors"}, args, s.flags)...)
	if status != want {
		s.t.Errorf("tensors %v: status %d, want %d: %s%s", args, status, want, out, messages)
	}
	return out, messages
}

// gc runs gc, and returns its result.
func (s *storing) gc(want int, args ...string) (result collected) {
	s.t.Helper()
	out, messages := s.tensors(want, slices.Concat([]string{"gc", "--json"}, args)...)
	if out != "" {
		if err := json.Unmarshal([]byte(out), &result); err != nil {
			s.t.Fatalf("%v: %s%s", err, out, messages)
		}
	}
	return result
}

// holds checks that the store has exactly the claims.
func (s *storing) holds(want ...oona.TensorClaim) {
	s.t.Helper()
	var got, keys []string
	if err := s.store.Each(s.t.Context(), func(o claimcheck.Object) error { got = append(got, o.Key()); return nil }); err != nil {
		s.t.Fatal(err)
	}
	for _, claim := range want {
		keys = append(keys, claim.Key)
	}
	slices.Sort(got)
	slices.Sort(keys)
	if !slices.Equal(got, keys) {
		s.t.Errorf("the store has %q, want %q", got, keys)
	}
}

func TestTensorsGC(t *testing.T) {
	t.Parallel()
	s := newStoring(t)
	metrics, late, dead, raw, unused, young := s.tensor("metrics!", 30), s.tensor("late", 30), s.tensor("dead", 30), s.tensor("raw!", 30), s.tensor("unused", 30), s.tensor("young", 1)
	all := []oona.TensorClaim{metrics, late, dead, raw, unused, young}
	s.publish(s.topics.SeedMetrics, s.frame(metrics))
	s.publish(s.topics.Late, s.frame(late))
	s.publish(s.topics.SeedMetricsDead, append(s.frame(dead), "and more"...))
	s.publish(s.topics.SeedRaw, s.frame(raw))

	r := s.gc(0)
	if !r.DryRun || r.Records != 4 || r.Plan.Referenced.Objects != 4 || r.Plan.Unreferenced.Objects != 1 || r.Plan.Young.Objects != 1 || r.OlderThan != (8*24*time.Hour).Seconds() {
		t.Errorf("by default: %+v, plan %+v", r, r.Plan)
	}
	s.holds(all...)
	s.gc(exitFailed, "--delete") // it asks, and the input is no terminal
	s.holds(all...)
	if r := s.gc(0, "--older-than=2h", "--list"); r.Plan.Unreferenced.Objects != 2 || len(r.List) != 2 {
		t.Errorf("the young one is as old as asked for: %+v", r.Plan)
	}
	r = s.gc(0, "--delete", "--yes", "--settle=1ms")
	if r.DryRun || r.Result == nil || r.Result.Deleted.Objects != 1 {
		t.Errorf("delete: %+v", r.Result)
	}
	s.holds(metrics, late, dead, raw, young)
	if _, err := os.Stat(s.file(unused)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("its file: %v", err)
	}
}

// Records of other topics that are named count, too: what oona replay --to-topic has copied
// may stay longer than what it was copied from.
func TestTensorsGCReadsMoreTopics(t *testing.T) {
	t.Parallel()
	s := newStoring(t)
	copied, used := s.tensor("copied", 30), s.tensor("used", 30)
	const topic = "a.copy"
	b := kafka.New(kafka.Config{Brokers: []string{s.brokers}, ClientID: "test", Settle: shortSettle}, nil)
	if _, err := b.Apply(t.Context(), []oona.TopicSpec{{Name: topic, Partitions: 1}}); err != nil {
		t.Fatal(err)
	}
	s.publish(topic, s.frame(copied))
	s.publish(s.topics.SeedMetrics, s.frame(used))
	if r := s.gc(0, "--topic", topic); r.Plan.Unreferenced.Objects != 0 || r.Plan.Referenced.Objects != 2 {
		t.Errorf("%+v, plan %+v", r, r.Plan)
	}
	s.gc(exitFailed, "--topic", topic, "--topic=absent", "--delete", "--yes", "--settle=1ms")
	s.holds(copied, used)
	if r := s.gc(0); r.Plan.Unreferenced.Objects != 1 {
		t.Errorf("without it: %+v", r.Plan)
	}
}

// Nothing is removed if something is not known.
func TestTensorsGCRefuses(t *testing.T) {
	t.Parallel()
	s := newStoring(t)
	claim, unused := s.tensor("needed", 30), s.tensor("unused", 30)
	remove := func(want int, more ...string) {
		t.Helper()
		s.gc(want, slices.Concat([]string{"--delete", "--yes", "--settle=1ms"}, more)...)
		if want != 0 {
			s.holds(claim, unused)
		}
	}
	remove(exitFailed) // no record refers to any tensor: the wrong bus?
	s.publish(s.topics.SeedMetrics, s.frame(claim))
	remove(exitFailed, "--prefix=another") // its topics do not exist
	remove(exitFailed, "--other-prefix=another")
	remove(exitFailed, "--archive="+t.TempDir()) // it is no archive
	typed := t.TempDir()
	if err := (&manifest.Manifest{Form: "parquet"}).Write(typed); err != nil {
		t.Fatal(err)
	}
	remove(exitFailed, "--archive="+typed)
	remove(exitFailed, "--keep="+filepath.Join(typed, "absent"))
	remove(exitUsage, "--older-than=1h")
	remove(exitUsage, "--settle=-1s")
	if status, _, messages := run(t, "tensors", "gc", "--brokers", s.brokers); status != exitUsage {
		t.Errorf("without a store: status %d, %s", status, messages)
	}
	s.publish(s.topics.SeedRawDead, []byte("\x1f\x8b is compressed"))
	remove(exitFailed)
	keep := filepath.Join(t.TempDir(), "keep.csv")
	if err := os.WriteFile(keep, fmt.Appendf(nil, "run,tensor\nr,weights_%X\nr,other\n", unused.SHA256), 0o600); err != nil {
		t.Fatal(err)
	}
	remove(0, "--ignore-undecodable", "--keep="+keep)
	s.holds(claim, unused)
	remove(0, "--ignore-undecodable")
	s.holds(claim)
}

// What an interrupted gc has set aside is not deleted either if nothing is known to be
// referred to, such as after the loss of the bus.
func TestTensorsGCAfterLossOfTheBus(t *testing.T) {
	t.Parallel()
	s := newStoring(t)
	claim := s.tensor("needed", 30)
	o, err := s.store.Stat(t.Context(), claim.SHA256)
	if err == nil {
		_, err = s.store.SetAside(t.Context(), []claimcheck.Object{o}, time.Now())
	}
	if err != nil {
		t.Fatal(err)
	}
	if r := s.gc(exitFailed, "--delete", "--yes", "--settle=1ms"); r.Result != nil || r.Plan.Aside.Objects != 1 {
		t.Errorf("%+v, plan %+v", r.Result, r.Plan)
	}
	s.publish(s.topics.SeedMetrics, s.frame(claim))
	if r := s.gc(0, "--delete", "--yes", "--settle=1ms"); r.Result == nil || r.Result.Back.Objects != 1 || r.Plan.AsideReferenced.Objects != 1 {
		t.Errorf("%+v, plan %+v", r.Result, r.Plan)
	}
	s.holds(claim)
}

// What an archive refers to stays, although the topics have lost it. An archive that
// cannot be read to its end keeps everything.
func TestTensorsGCKeepsArchives(t *testing.T) {
	t.Parallel()
	s := newStoring(t)
	archived, logged, unused := s.tensor("archived", 30), s.tensor("logged", 30), s.tensor("unused", 30)
	s.publish(s.topics.SeedMetrics, s.frame(archived))
	dir := t.TempDir()
	if status, out, messages := run(t, "replay", s.topics.SeedMetrics, "--archive", dir, "--brokers", s.brokers, "--group="); status != 0 {
		t.Fatalf("archive: status %d, %s%s", status, out, messages)
	}
	other := newStoring(t) // its topics never had the record
	other.flags = slices.Concat([]string{"--brokers", other.brokers}, s.flags[2:])
	other.publish(other.topics.SeedMetrics, s.frame(logged))
	if r := other.gc(0, "--archive", dir); r.Plan.Unreferenced.Objects != 1 || r.Plan.Referenced.Objects != 2 {
		t.Errorf("the plan is %+v", r.Plan)
	}
	files, err := filepath.Glob(filepath.Join(dir, s.topics.SeedMetrics, "*", "*.avro"))
	if err != nil || len(files) != 1 {
		t.Fatalf("the archive has the files %q: %v", files, err)
	}
	if err := os.Rename(files[0], files[0]+".away"); err != nil {
		t.Fatal(err)
	}
	other.gc(exitFailed, "--archive", dir, "--delete", "--yes", "--settle=1ms")
	s.holds(archived, logged, unused)
	if err := os.Rename(files[0]+".away", files[0]); err != nil {
		t.Fatal(err)
	}
	whole, err := os.ReadFile(files[0])
	if err != nil {
		t.Fatal(err)
	}
	i := bytes.Index(whole, []byte(hex.EncodeToString(archived.SHA256[:])))
	if i < 0 {
		t.Fatal("the archive does not have the key in clear text")
	}
	damaged := bytes.Clone(whole)
	damaged[i] = 'x' // the records can still be read, and one refers to another tensor
	if err := os.WriteFile(files[0], damaged, 0o600); err != nil {
		t.Fatal(err)
	}
	other.gc(exitFailed, "--archive", dir, "--delete", "--yes", "--settle=1ms")
	s.holds(archived, logged, unused)
	if err := os.WriteFile(files[0], whole, 0o600); err != nil {
		t.Fatal(err)
	}
	other.gc(0, "--archive", dir, "--delete", "--yes", "--settle=1ms")
	s.holds(archived, logged)
}

func TestTensorsLs(t *testing.T) {
	t.Parallel()
	s := newStoring(t)
	used, unused := s.tensor("used", 3), s.tensor("unused", 30)
	for range 2 {
		s.publish(s.topics.SeedMetrics, s.frame(used))
	}
	list := func(args ...string) map[string]listedTensor {
		t.Helper()
		out, _ := s.tensors(0, append([]string{"ls", "--json"}, args...)...)
		all := make(map[string]listedTensor)
		for decoder := json.NewDecoder(strings.NewReader(out)); decoder.More(); {
			var one listedTensor
			if err := decoder.Decode(&one); err != nil {
				t.Fatal(err)
			}
			all[one.Key] = one
		}
		return all
	}
	if all := list(); len(all) != 2 || all[used.Key].Size != 4 || all[used.Key].Records != nil || all[used.Key].SHA256 != hex.EncodeToString(used.SHA256[:]) || time.Since(all[unused.Key].Modified) < 29*24*time.Hour {
		t.Errorf("the list is %+v", all)
	}
	all := list("--refs")
	if one := all[used.Key]; one.Records == nil || *one.Records != 2 || one.First.Offset != 0 || one.Run != "r" || one.Seed == nil || *one.Seed != 3 || one.DType != "uint8" || !slices.Equal(one.Shape, []int64{2, 2}) {
		t.Errorf("the used one is %+v", one)
	}
	if one := all[unused.Key]; one.Records == nil || *one.Records != 0 || one.First != nil {
		t.Errorf("the unused one is %+v", one)
	}
}

func TestTensorsVerify(t *testing.T) {
	t.Parallel()
	s := newStoring(t)
	good, damaged, missing, unused := s.tensor("good", 1), s.tensor("damaged!", 1), s.tensor("missing!", 1), s.tensor("unused", 1)
	s.publish(s.topics.SeedMetrics, s.frame(good, damaged, missing))
	dangling := oona.TensorClaim{Bucket: "kasmina-tensors", SHA256: sha256.Sum256([]byte("never sent")), Size: 10}
	dangling.Key = claimcheck.Key(dangling.SHA256)
	s.publish(s.topics.SeedRawDead, s.frame(dangling)) // it is a dead letter because of that
	verify := func(want int, args ...string) (result struct {
		Verified, Unreferenced struct{ Objects, Bytes int64 }
		Damaged, Missing       []faultyTensor
		Refused                int64 `json:"missing_of_refused_records"`
	},
	) {
		t.Helper()
		out, messages := s.tensors(want, append([]string{"verify", "--json"}, args...)...)
		if err := json.Unmarshal([]byte(out), &result); err != nil {
			t.Fatalf("%v: %s%s", err, out, messages)
		}
		return result
	}
	if r := verify(0); r.Verified.Objects != 4 || r.Unreferenced.Objects != 1 || r.Unreferenced.Bytes != unused.Size || r.Refused != 1 {
		t.Errorf("all is well: %+v", r)
	}
	if r := verify(0, "--referenced"); r.Verified.Objects != 3 {
		t.Errorf("only those that are referred to: %+v", r)
	}
	err := errors.Join(os.Remove(s.file(missing)), os.Chmod(s.file(damaged), 0o600), os.WriteFile(s.file(damaged), []byte("DAMAGED!"), 0o600))
	if err != nil {
		t.Fatal(err)
	}
	r := verify(exitFailed)
	if r.Verified.Objects != 2 || len(r.Damaged) != 1 || r.Damaged[0].Key != damaged.Key || len(r.Missing) != 1 || r.Missing[0].Key != missing.Key || r.Missing[0].Run != "r" {
		t.Errorf("with faults: %+v", r)
	}
	if r := verify(exitFailed, "--offline"); len(r.Damaged) != 1 || len(r.Missing) != 0 || r.Verified.Objects != 2 {
		t.Errorf("offline: %+v", r)
	}
}

func TestTensorsGet(t *testing.T) {
	t.Parallel()
	s := newStoring(t)
	claim := s.tensor("abcdef", 0)
	get := func(want int, args ...string) []byte {
		t.Helper()
		out, _ := s.tensors(want, append([]string{"get"}, args...)...)
		return []byte(out)
	}
	digest := hex.EncodeToString(claim.SHA256[:])
	text := fmt.Sprintf(`{"bucket":%q,"key":%q,"size":%d,"sha256":%q}`, claim.Bucket, claim.Key, claim.Size, digest)
	asTensor := fmt.Sprintf(`{"name":"w","seed_id":3,"dtype":"uint8","shape":[3,2],"data":%s}`, text)
	for _, which := range []string{digest, claim.Key, text, asTensor} {
		if got := get(0, which); string(got) != "abcdef" {
			t.Errorf("%s: %q", which, got)
		}
	}
	file := filepath.Join(t.TempDir(), "tensor")
	get(0, digest, "--output", file)
	if got, err := os.ReadFile(file); err != nil || string(got) != "abcdef" {
		t.Errorf("the file has %q: %v", got, err)
	}
	get(exitFailed, digest, "--npy") // no record says what it is
	s.publish(s.topics.SeedMetrics, s.frame())
	s.publish(s.topics.SeedMetrics, s.frame(claim))
	for shape, args := range map[string][]string{
		"'shape': (2, 3)": {digest, "--npy"},
		"'shape': (3, 2)": {asTensor, "--npy"},
		"'shape': (6,)":   {asTensor, "--npy", "--dtype=int8"},
		"'shape': (1, 3)": {digest, "--npy", "--dtype=float16", "--shape=1,3"},
	} {
		got := get(0, args...)
		if !bytes.HasPrefix(got, []byte("\x93NUMPY")) || !bytes.HasSuffix(got, []byte("\nabcdef")) || !bytes.Contains(got, []byte(shape)) {
			t.Errorf("%v: %q has not %s", args, got, shape)
		}
	}
	get(exitFailed, digest, "--npy", "--dtype=float32")
	get(exitFailed, digest, "--npy", "--dtype=uint8", "--shape=7")
	get(exitUsage, digest, "--dtype=uint8")
	get(exitUsage, digest, "--npy", "--shape=6")
	get(exitUsage, "no-digest")
	get(exitUsage, `{"sha256":"00"}`)
	get(exitFailed, strings.Repeat("0", 64))
	get(exitFailed, strings.Replace(text, "kasmina-tensors", "another", 1))
	if err := errors.Join(os.Chmod(s.file(claim), 0o600), os.WriteFile(s.file(claim), []byte("abcdeF"), 0o600), os.Remove(file)); err != nil {
		t.Fatal(err)
	}
	if got := get(exitFailed, digest); len(got) != 0 {
		t.Errorf("bytes that are not verified were written: %q", got)
	}
	get(exitFailed, digest, "--output", file)
	if _, err := os.Stat(file); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a file was written: %v", err)
	}
}
