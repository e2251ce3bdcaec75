package ingest

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/schemas/avro"
)

const noFrame = -1

// refused posts a bad body and checks that nothing of it was published, that
// the problem names frame and field, and that the next good request counts. It
// returns the problem as it was sent.
func refused(t *testing.T, mediaType string, body []byte, code int, why reason, frame int, field, detail string, headers ...string) string {
	t.Helper()
	onBus := newBus(t)
	s := newStage(t, onBus, func(c *Config) {
		c.MaxReadings, c.MaxMetrics, c.MaxTensors, c.MaxFrames, c.MaxDecompressedBytes = 1000, 8, 4, 16, 1<<16
	})
	w := post(s, mediaType, body, headers...)
	if calls, _ := onBus.published(t); calls != 0 {
		t.Errorf("%d calls of Publish for a bad request", calls)
	}
	p := decodeProblem(t, w)
	got := noFrame
	if p.Frame != nil {
		got = *p.Frame
	}
	if p.Status != code || p.Type != "urn:oona:problem:"+string(why) || got != frame || p.Field != field || !strings.Contains(p.Detail, detail) {
		t.Errorf("problem is %s\nwant %d %s, frame %d, field %q, detail with %q", w.Body, code, why, frame, field, detail)
	}
	if w := post(s, mediaAvro, frames(nil)); w.Code != http.StatusOK {
		t.Errorf("the next good request is answered %d %s", w.Code, w.Body)
	}
	if got, want := s.Counts(), (Counts{Requests: 2, Refused: 1, Frames: 1, Readings: 4}); got != want {
		t.Errorf("counts are %+v, want %+v", got, want)
	}
	return w.Body.String()
}

func TestBadAvro(t *testing.T) {
	good := frames(nil)
	corrupt := func(at int, b byte) []byte {
		body := bytes.Clone(good)
		body[at] ^= b
		return body
	}
	frame := func(change func(*oona.Frame)) []byte { return frames(change) }
	for name, c := range map[string]struct {
		body   []byte
		code   int
		reason reason
		frame  int
		field  string
		detail string
	}{
		"empty":                 {nil, 400, reasonUndecodable, noFrame, "", "the body is empty"},
		"undecodable bytes":     {[]byte("rubbish"), 400, reasonUndecodable, 0, "framing", "begins with 72 75"},
		"only the marker":       {good[:2], 400, reasonUndecodable, 0, "framing", "the framing has 10 bytes, 2 are there"},
		"wrong fingerprint":     {corrupt(5, 0xff), 400, reasonUndecodable, 0, "fingerprint", "is not a published schema"},
		"another record":        {avro.AppendTick(nil, oona.Tick{Worker: "w", WrittenAt: 1}), 400, reasonUndecodable, 0, "fingerprint", "is a kasmina.telemetry.Tick"},
		"cut off":               {good[:len(good)-1], 400, reasonUndecodable, 0, "tensors", "ends early"},
		"NUL in an id":          {frame(func(f *oona.Frame) { f.Run = "a\x00" }), 400, reasonInvalid, 0, "run_id", "at position 1"},
		"id that is not UTF-8":  {frame(func(f *oona.Frame) { f.Layer = "enc\xff" }), 400, reasonInvalid, 0, "layer_id", "at position 3"},
		"name not UTF-8":        {frame(func(f *oona.Frame) { f.Metrics[1].Name = "\xc0\xaf" }), 400, reasonInvalid, 0, "metrics[1].name", "at position 0"},
		"empty id":              {frame(func(f *oona.Frame) { f.Producer = "" }), 400, reasonInvalid, 0, "producer_id", "is empty"},
		"time zero":             {frame(func(f *oona.Frame) { f.ObservedAt = 0 }), 400, reasonInvalid, 0, "observed_at", "outside the years"},
		"least time":            {frame(func(f *oona.Frame) { f.ObservedAt = math.MinInt64 }), 400, reasonInvalid, 0, "observed_at", "outside the years"},
		"negative epoch":        {frame(func(f *oona.Frame) { f.Epoch = -1 }), 400, reasonInvalid, 0, "producer_epoch", "start time in microseconds"},
		"negative step":         {frame(func(f *oona.Frame) { f.Step = -1 }), 400, reasonInvalid, 0, "step", "counts from 0"},
		"a million seeds":       {frame(func(f *oona.Frame) { f.Metrics = nil; manySeeds(1_000_000)(f) }), 413, reasonTooLarge, 0, "seed_ids", "has more than 1000 entries"},
		"a configuration":       {avro.AppendConfiguration(nil, oona.WindowConfiguration{Generation: 1}), 400, reasonUndecodable, 0, "fingerprint", "is a kasmina.telemetry.WindowConfiguration"},
		"a rollup":              {avro.AppendRollup(nil, &oona.Rollup{}), 400, reasonUndecodable, 0, "fingerprint", "is a kasmina.telemetry.LayerHealth"},
		"HTML":                  {[]byte("<!DOCTYPE html><html>"), 415, reasonMediaType, noFrame, "", "looks like HTML or XML"},
		"gzip untold":           {gzipped(good), 415, reasonMediaType, noFrame, "", "send it with Content-Encoding: gzip"},
		"zstd untold":           {zstandarded(t, good), 415, reasonMediaType, noFrame, "", "send it with Content-Encoding: zstd"},
		"block's size lies":     {arrays(good, -2, 3, 1, 2, 0), 400, reasonUndecodable, 0, "seed_ids", "a block's stated size is not its size"},
		"block's negative size": {arrays(good, -2, -3, 1, 2, 0), 400, reasonUndecodable, 0, "seed_ids", "it is -3"},
		"block of 2^40 bytes":   {arrays(good, -2, 1<<40, 1, 2, 0), 400, reasonUndecodable, 0, "seed_ids", "1099511627776 bytes are announced"},
		"least count":           {arrays(good, math.MinInt64, 1, 0), 400, reasonUndecodable, 0, "seed_ids", "9223372036854775808 entries"},
		"container cut off":     {containerOf(t, good)[:1000], 400, reasonUndecodable, 0, "metadata", "ends early"},
		"container of ticks":    {containerWith(t, "kasmina.telemetry.Tick"), 400, reasonUndecodable, 0, "avro.schema", "the file holds kasmina.telemetry.Tick"},
		"container of none":     {containerOf(t), 400, reasonUndecodable, noFrame, "", "the file has no frames"},
		"container's second":    {containerOf(t, good, frame(func(f *oona.Frame) { f.States[0] = 99 }), good), 400, reasonInvalid, 1, "states[0]", "frame 1: states[0]"},
		"container's end":       {append(containerOf(t, good), 2), 400, reasonUndecodable, 1, "block", "ends early"},
		"container too large":   {containerOf(t, good, frame(manySeeds(1000)), frame(manySeeds(1000)), frame(manySeeds(1000)), frame(manySeeds(1000)), frame(manySeeds(1000)), frame(manySeeds(1000)), frame(manySeeds(1000)), frame(manySeeds(1000))), 413, reasonTooLarge, noFrame, "", "more than 65536 bytes decompressed"},
		"container of many":     {containerOf(t, slices.Repeat([][]byte{good}, 17)...), 413, reasonTooLarge, noFrame, "", "more than 16 frames"},
		"registry framing":      {append([]byte{0, 0, 0, 0, 7}, good[10:]...), 415, reasonMediaType, noFrame, "", "looks like Avro as a schema registry frames it"},
		"JSON":                  {[]byte(" " + goodJSON), 415, reasonMediaType, noFrame, "", "Content-Type: application/json"},
		"trailing garbage":      {append(bytes.Clone(good), "\r\n"...), 400, reasonUndecodable, 1, "framing", "after 1 that are whole"},
		"huge count of seeds":   {hugeCount("seed_ids"), 400, reasonUndecodable, 0, "seed_ids", "are left"},
		"huge length of an id":  {append(bytes.Clone(good[:10]), binary.AppendVarint(nil, math.MaxInt64)...), 400, reasonUndecodable, 0, "run_id", "are left"},
		"mismatched states":     {frame(func(f *oona.Frame) { f.States = f.States[:3] }), 400, reasonInvalid, 0, "states", "has 3 entries for 4 seed_ids"},
		"mismatched values":     {frame(func(f *oona.Frame) { f.Metrics[1].Values = append(f.Metrics[1].Values, 1) }), 400, reasonInvalid, 0, "metrics[1].values", "has 5 entries for 4 seed_ids"},
		"duplicate seed":        {frame(func(f *oona.Frame) { f.Seeds[3] = 1 }), 400, reasonInvalid, 0, "seed_ids[3]", "repeats seed 1"},
		"negative seed":         {frame(func(f *oona.Frame) { f.Seeds[0] = -1 }), 400, reasonInvalid, 0, "seed_ids[0]", "seeds count from 0"},
		"unknown ordinal":       {frame(func(f *oona.Frame) { f.States[2] = 11 }), 400, reasonInvalid, 0, "states[2]", "ordinal 11"},
		"year 1":                {frame(func(f *oona.Frame) { f.ObservedAt = -62_135_596_800_000_000 }), 400, reasonInvalid, 0, "observed_at", "outside the years 2000 to 2199"},
		"year 9999":             {frame(func(f *oona.Frame) { f.ObservedAt = 253_402_300_799_000_000 }), 400, reasonInvalid, 0, "observed_at", "outside the years"},
		"milliseconds":          {frame(func(f *oona.Frame) { f.ObservedAt /= 1000 }), 400, reasonInvalid, 0, "observed_at", "is it in another unit?"},
		"negative sequence":     {frame(func(f *oona.Frame) { f.Sequence = -1 }), 400, reasonInvalid, 0, "sequence", "counts from 0"},
		"newline in an id":      {frame(func(f *oona.Frame) { f.Run = "a\nb" }), 400, reasonInvalid, 0, "run_id", `'\n' at position 1`},
		"quote in an id":        {frame(func(f *oona.Frame) { f.Layer = `a"b` }), 400, reasonInvalid, 0, "layer_id", "at position 1"},
		"long id":               {frame(func(f *oona.Frame) { f.Producer = oona.ProducerID(strings.Repeat("p", 129)) }), 400, reasonInvalid, 0, "producer_id", "has 129 bytes"},
		"no seeds":              {frame(func(f *oona.Frame) { f.Seeds, f.States, f.Metrics = nil, nil, nil }), 400, reasonInvalid, 0, "seed_ids", "at least one reading"},
		"bad second of three":   {frames(nil, func(f *oona.Frame) { f.States[0] = 99 }, nil), 400, reasonInvalid, 1, "states[0]", "frame 1: states[0]"},
		"bad second bytes":      {append(bytes.Clone(good), good[:13]...), 400, reasonUndecodable, 1, "run_id", "begins at byte"},
		"too many readings":     {frame(manySeeds(1001)), 413, reasonTooLarge, 0, "seed_ids", "has more than 1000 entries; split the frame by seed ids"},
		"too many metrics":      {frame(manyMetrics(9)), 413, reasonTooLarge, 0, "metrics", "has more than 8 entries; send fewer metrics"},
		"too many frames":       {frames(make([]func(*oona.Frame), 17)...), 413, reasonTooLarge, noFrame, "", "more than 16 frames"},
		"too many dimensions": {frame(func(f *oona.Frame) {
			f.Tensors = []oona.Tensor{{Name: "w", Seed: 1, DType: "uint8", Shape: slices.Repeat([]int64{1}, 65), Data: make([]byte, 1)}}
		}), 413, reasonTooLarge, 0, "tensors[0].shape", "send the tensor with fewer dimensions"},
		"tensor's shape": {frame(func(f *oona.Frame) {
			f.Tensors = []oona.Tensor{{Name: "w", Seed: 1, DType: "float32", Shape: []int64{3}, Data: make([]byte, 8)}}
		}), 400, reasonInvalid, 0, "tensors[0].shape", "does not fit 8 bytes"},
	} {
		t.Run(name, func(t *testing.T) {
			goldenLine(t, "avro.txt", name, refused(t, mediaAvro, c.body, c.code, c.reason, c.frame, c.field, c.detail))
		})
	}
}

// hugeCount is a frame that announces 2^40 entries of an array.
func hugeCount(string) []byte {
	f := goodFrame(0)
	f.Seeds, f.States, f.Metrics = nil, nil, nil
	body := avro.AppendFrame(nil, f)
	body = body[:len(body)-4] // seed_ids, states, metrics and tensors are empty: one byte each
	return binary.AppendVarint(body, 1<<40)
}

func manySeeds(n int) func(*oona.Frame) {
	return func(f *oona.Frame) {
		f.Seeds, f.States = make([]oona.SeedID, n), make([]oona.State, n)
		for i := range f.Seeds {
			f.Seeds[i] = oona.SeedID(i)
		}
		for i := range f.Metrics {
			f.Metrics[i].Values = make([]float32, n)
		}
	}
}

func manyMetrics(n int) func(*oona.Frame) {
	return func(f *oona.Frame) {
		f.Metrics = nil
		for i := range n {
			f.Metrics = append(f.Metrics, oona.Column{Name: fmt.Sprintf("m%d", i), Values: make([]float32, len(f.Seeds))})
		}
	}
}

func TestBadJSON(t *testing.T) {
	replace := func(old, replacement string) string {
		if !strings.Contains(goodJSON, old) {
			t.Fatalf("%q is not in the good frame", old)
		}
		return strings.Replace(goodJSON, old, replacement, 1)
	}
	tensors := func(tensor string) string { return replace(`"step":7`, `"step":7,"tensors":[`+tensor+`]`) }
	for name, c := range map[string]struct {
		body   string
		code   int
		reason reason
		frame  int
		field  string
		detail string
	}{
		"empty":                   {"", 400, reasonUndecodable, noFrame, "", "the body is empty"},
		"blank":                   {" \r\n\t", 400, reasonUndecodable, noFrame, "", "the body is empty"},
		"HTML":                    {"<html>", 415, reasonMediaType, noFrame, "", "looks like HTML or XML"},
		"Avro":                    {string(frames(nil)), 415, reasonMediaType, noFrame, "", "looks like Avro single-object encoding"},
		"a container":             {string(containerOf(t, frames(nil))), 415, reasonMediaType, noFrame, "", "looks like an Avro object container file"},
		"gzip untold":             {string(gzipped([]byte(goodJSON))), 415, reasonMediaType, noFrame, "", "send it with Content-Encoding: gzip"},
		"registry framing":        {"\x00\x00\x00\x00\x07", 415, reasonMediaType, noFrame, "", "as a schema registry frames it"},
		"a form":                  {"run_id=digits", 400, reasonUndecodable, noFrame, "", "invalid character 'r'"},
		"NUL":                     {replace("digits", `dig\u0000its`), 400, reasonInvalid, 0, "run_id", "at position 3"},
		"half a surrogate":        {replace("digits", `dig\ud800its`), 400, reasonInvalid, 0, "run_id", "at position 3"},
		"a million arrays":        {strings.Repeat("[", 1_000_000), 400, reasonUndecodable, noFrame, "", "exceeded max depth"},
		"deep in a field":         {replace("[0,1,2,3]", strings.Repeat("[", 5000)+strings.Repeat("]", 5000)), 400, reasonInvalid, 0, "seed_ids[0]", "is an array, not a whole number"},
		"deep in what is unknown": {replace(`"step":7`, `"x":`+strings.Repeat("[", 5000)+strings.Repeat("]", 5000)), 400, reasonInvalid, 0, "x", "is not known"},
		"a million seeds":         {replace("[0,1,2,3]", "["+strings.Repeat("0,", 999_999)+"0]"), 413, reasonTooLarge, 0, "seed_ids", "has more than 1000 entries"},
		"time zero":               {replace("1790000001000000", "0"), 400, reasonInvalid, 0, "observed_at", "outside the years"},
		"negative epoch":          {replace("1790000000000000", "-1"), 400, reasonInvalid, 0, "producer_epoch", "start time in microseconds"},
		"negative seed":           {replace("[0,1,2,3]", "[-1,1,2,3]"), 400, reasonInvalid, 0, "seed_ids[0]", "seeds count from 0"},
		"a number without end":    {replace(`"step":7`, `"step":`+strings.Repeat("9", 100_000)), 400, reasonInvalid, 0, "step", "not a whole number of 64 bits"},
		"too many metrics":        {replace(`{"name":"blend"`, strings.Repeat(`{"name":"m","values":[]},`, 8)+`{"name":"blend"`), 413, reasonTooLarge, 0, "metrics", "has more than 8 entries; send fewer metrics"},
		"cut off":                 {goodJSON[:90], 400, reasonUndecodable, noFrame, "", "unexpected end of JSON input"},
		"syntax":                  {replace(`[0,1,2,3]`, `[0,1,,3]`), 400, reasonUndecodable, noFrame, "", "in line 2"},
		"two objects":             {goodJSON + goodJSON, 400, reasonUndecodable, noFrame, "", "after top-level value"},
		"a bare NaN":              {replace("[1,2,3,4]", "[1,2,3,NaN]"), 400, reasonUndecodable, noFrame, "", "write null for what was not measured"},
		"not UTF-8":               {replace("digits", "dig\xffits"), 400, reasonUndecodable, noFrame, "", "not UTF-8"},
		"no frames":               {"[]", 400, reasonUndecodable, noFrame, "", "the array is empty"},
		"a number":                {"7", 400, reasonInvalid, 0, "", "is a number, not a frame"},
		"a number in array":       {"[" + goodJSON + ",null]", 400, reasonInvalid, 1, "", "frame 1: is null, not a frame"},
		"nested arrays":           {"[[" + goodJSON + "]]", 400, reasonInvalid, 0, "", "is an array, not a frame"},
		"unknown field":           {replace(`"step"`, `"stepp"`), 400, reasonInvalid, 0, "stepp", "is not known; a frame has run_id, layer_id"},
		"other case":              {replace(`"step"`, `"Step"`), 400, reasonInvalid, 0, "Step", "is not known"},
		"unprintable field":       {replace(`"step"`, `"\u0001\n"`), 400, reasonInvalid, 0, `"\x01\n"`, "is not known"},
		"empty field":             {replace(`"step"`, `""`), 400, reasonInvalid, 0, `""`, "is not known"},
		"given twice":             {replace(`"step":7`, `"step":7,"step":8`), 400, reasonInvalid, 0, "step", "is given twice"},
		"missing sequence":        {replace(`"sequence":0,`, ``), 400, reasonInvalid, 0, "sequence", "is missing"},
		"missing states":          {replace(`"states"`, `"tensors"`), 400, reasonInvalid, 0, "tensors[0]", "is a string, not a tensor"},
		"id of wrong type":        {replace(`"digits"`, `7`), 400, reasonInvalid, 0, "run_id", "is a number, not a string"},
		"id with newline":         {replace("enc.1", `enc\n1`), 400, reasonInvalid, 0, "layer_id", `'\n' at position 3`},
		"id with quote":           {replace("enc.1", `enc\"1`), 400, reasonInvalid, 0, "layer_id", "at position 3"},
		"null timeline":           {replace(`"step":7`, `"timeline":null`), 400, reasonInvalid, 0, "timeline", "is null, not a string"},
		"fractional step":         {replace(`"step":7`, `"step":7.5`), 400, reasonInvalid, 0, "step", "is 7.5, not a whole number of 64 bits"},
		"step beyond 64 bits":     {replace(`"step":7`, `"step":9223372036854775808`), 400, reasonInvalid, 0, "step", "not a whole number of 64 bits"},
		"step as text":            {replace(`"step":7`, `"step":"7"`), 400, reasonInvalid, 0, "step", "is a string, not a whole number"},
		"year 1":                  {replace("1790000001000000", "-62135596800000000"), 400, reasonInvalid, 0, "observed_at", "outside the years"},
		"year 9999":               {replace("1790000001000000", "253402300799000000"), 400, reasonInvalid, 0, "observed_at", "outside the years"},
		"seed beyond 32 bits":     {replace("[0,1,2,3]", "[0,1,2,2147483648]"), 400, reasonInvalid, 0, "seed_ids[3]", "not a whole number of 32 bits"},
		"seed is null":            {replace("[0,1,2,3]", "[0,1,2,null]"), 400, reasonInvalid, 0, "seed_ids[3]", "is null, not a whole number"},
		"seeds are an object":     {replace("[0,1,2,3]", "{}"), 400, reasonInvalid, 0, "seed_ids", "is an object, not an array"},
		"duplicate seed":          {replace("[0,1,2,3]", "[3,1,2,3]"), 400, reasonInvalid, 0, "seed_ids[3]", "repeats seed 3"},
		"unknown state":           {replace("DORMANT", "ASLEEP"), 400, reasonInvalid, 0, "states[0]", `unknown state "ASLEEP"; states are DORMANT`},
		"unknown ordinal":         {replace(`"training",3`, `"training",11`), 400, reasonInvalid, 0, "states[2]", "ordinal 11"},
		"ordinal 256":             {replace(`"training",3`, `"training",256`), 400, reasonInvalid, 0, "states[2]", "ordinal 256"},
		"negative ordinal":        {replace(`"training",3`, `"training",-1`), 400, reasonInvalid, 0, "states[2]", "ordinal -1"},
		"state of wrong type":     {replace(`"training",3`, `"training",true`), 400, reasonInvalid, 0, "states[2]", "is a boolean, not the name or ordinal of a state"},
		"mismatched values":       {replace("[0,2.5e-1,0.5,1]", "[0]"), 400, reasonInvalid, 0, "metrics[1].values", "has 1 entries for 4 seed_ids"},
		"value of wrong type":     {replace("[0,2.5e-1,0.5,1]", "[0,1,2,{}]"), 400, reasonInvalid, 0, "metrics[1].values[3]", "is an object, not a number or null"},
		"value as text":           {replace("[0,2.5e-1,0.5,1]", `[0,1,2,"1"]`), 400, reasonInvalid, 0, "metrics[1].values[3]", `is "1", not a number, null`},
		"value too great":         {replace("[0,2.5e-1,0.5,1]", "[0,1,2,1e309]"), 400, reasonInvalid, 0, "metrics[1].values[3]", "is 1e309, which does not fit a float64"},
		"small fraction":          {replace(`"step":7`, `"step":100000000000000000001e-1`), 400, reasonInvalid, 0, "step", "not a whole number of 64 bits"},
		"beyond 64 bits by power": {replace(`"step":7`, `"step":1e19`), 400, reasonInvalid, 0, "step", "is 1e19, not a whole number of 64 bits"},
		"beyond any power":        {replace(`"step":7`, `"step":1e99999999999999999999`), 400, reasonInvalid, 0, "step", "not a whole number of 64 bits"},
		"below any power":         {replace(`"step":7`, `"step":1e-99999999999999999999`), 400, reasonInvalid, 0, "step", "not a whole number of 64 bits"},
		"seed beyond by power":    {replace("[0,1,2,3]", "[0,1,2,1e10]"), 400, reasonInvalid, 0, "seed_ids[3]", "is 1e10, not a whole number of 32 bits"},
		"metric's field":          {replace(`"name":"blend"`, `"named":"blend"`), 400, reasonInvalid, 0, "metrics[1].named", "is not known; a metric has name, values"},
		"metric repeated":         {replace(`"blend"`, `"gradient_norm"`), 400, reasonInvalid, 0, "metrics[1].name", "repeats gradient_norm"},
		"bad second":              {"[" + goodJSON + "," + replace("[1,2,3,4]", "[1,2,3,false]") + "," + goodJSON + "]", 400, reasonInvalid, 1, "metrics[0].values[3]", "frame 1: metrics[0].values[3]"},
		"too many readings":       {replace("[0,1,2,3]", "["+strings.Repeat("0,", 1000)+"0]"), 413, reasonTooLarge, 0, "seed_ids", "split the frame by seed ids"},
		"a byte order mark":       {"\ufeff" + goodJSON, 400, reasonUndecodable, noFrame, "", "begins with a byte order mark"},
		"too many states":         {replace(`["DORMANT"`, "["+strings.Repeat("0,", 1000)+`"DORMANT"`), 413, reasonTooLarge, 0, "states", "split the frame by seed ids"},
		"too many values":         {replace("[0,2.5e-1,0.5,1]", "["+strings.Repeat("0,", 1000)+"0]"), 413, reasonTooLarge, 0, "metrics[1].values", "split the frame by seed ids"},
		"too many tensors":        {tensors(strings.Repeat(`{"name":"w","seed_id":1,"dtype":"uint8","shape":[1],"data":"AA=="},`, 4) + `{}`), 413, reasonTooLarge, 0, "tensors", "send the tensors of some seeds in another frame"},
		"too many dimensions":     {tensors(`{"name":"w","seed_id":1,"dtype":"uint8","shape":[` + strings.Repeat("1,", 64) + `1],"data":"AA=="}`), 413, reasonTooLarge, 0, "tensors[0].shape", "send the tensor with fewer dimensions"},
		"too many frames":         {"[" + strings.Repeat(goodJSON+",", 16) + goodJSON + "]", 413, reasonTooLarge, noFrame, "", "more than 16 frames"},
		"tensor not base64":       {tensors(`{"name":"w","seed_id":1,"dtype":"uint8","shape":[1],"data":"?"}`), 400, reasonInvalid, 0, "tensors[0].data", "is not base64"},
		"tensor data null":        {tensors(`{"name":"w","seed_id":1,"dtype":"uint8","shape":[1],"data":null}`), 400, reasonInvalid, 0, "tensors[0].data", "is null, not base64 or a claim"},
		"tensor of no seed":       {tensors(`{"name":"w","seed_id":9,"dtype":"uint8","shape":[1],"data":"AA=="}`), 400, reasonInvalid, 0, "tensors[0].seed_id", "not among"},
		"claim cut short":         {tensors(`{"name":"w","seed_id":1,"dtype":"uint8","shape":[1],"data":{"bucket":"b","key":"k","size":1}}`), 400, reasonInvalid, 0, "tensors[0].data.sha256", "is missing"},
		"claim's digest":          {tensors(`{"name":"w","seed_id":1,"dtype":"uint8","shape":[1],"data":{"bucket":"b","key":"k","size":1,"sha256":"00"}}`), 400, reasonInvalid, 0, "tensors[0].data.sha256", "has 2 characters"},
		"claim's digest hex":      {tensors(`{"name":"w","seed_id":1,"dtype":"uint8","shape":[1],"data":{"bucket":"b","key":"k","size":1,"sha256":"` + strings.Repeat("zz", 32) + `"}}`), 400, reasonInvalid, 0, "tensors[0].data.sha256", "is not hexadecimal"},
	} {
		t.Run(name, func(t *testing.T) {
			goldenLine(t, "json.txt", name, refused(t, mediaJSON, []byte(c.body), c.code, c.reason, c.frame, c.field, c.detail))
		})
	}
}

func TestEncodedSize(t *testing.T) {
	onBus := newBus(t)
	s := newStage(t, onBus, func(c *Config) { c.MaxMessageBytes = recordOverhead + 2000 })
	w := post(s, mediaAvro, frames(nil, manySeeds(1000)))
	p := decodeProblem(t, w)
	if p.Status != 413 || p.Frame == nil || *p.Frame != 1 || !strings.Contains(p.Detail, "the bus takes 2000; split it by seed ids into frames of their own sequence numbers, at most 135 seeds each") {
		t.Errorf("problem is %s", w.Body)
	}
	if w := post(s, mediaAvro, frames(manySeeds(135))); w.Code != http.StatusOK {
		t.Errorf("a frame of the advised size is answered %d %s", w.Code, w.Body)
	}
	if calls, _ := onBus.published(t); calls != 1 {
		t.Errorf("%d calls of Publish", calls)
	}
}

func TestBodySize(t *testing.T) {
	body := frames(nil, nil, nil)
	s := newStage(t, newBus(t), func(c *Config) { c.MaxBodyBytes = int64(len(body)) })
	if w := post(s, mediaAvro, body); w.Code != http.StatusOK {
		t.Errorf("a body at the limit is answered %d %s", w.Code, w.Body)
	}
	for name, length := range map[string]int64{"announced": int64(len(body)) + 1, "chunked": -1} {
		r := httptest.NewRequest(http.MethodPost, "/v1/frames", bytes.NewReader(append(bytes.Clone(body), 0)))
		r.ContentLength = length
		r.Header.Set("Content-Type", mediaAvro)
		w := httptest.NewRecorder()
		s.Handler().ServeHTTP(w, r)
		if p := decodeProblem(t, w); p.Status != 413 || !strings.Contains(p.Detail, fmt.Sprintf("more than %d bytes", len(body))) {
			t.Errorf("%s: problem is %s", name, w.Body)
		}
	}
}

// The answers to requests that are wrong as such, byte for byte. Set
// OONA_UPDATE_GOLDEN=1 to write them anew.
func TestGoldenProblems(t *testing.T) {
	s := newStage(t, newBus(t), nil)
	for _, c := range []struct {
		name, method, path, body string
		headers                  []string
		answers                  []string // headers
	}{
		{"method", "GET", "/v1/frames", "", nil, []string{"Allow", "POST"}},
		{"path", "POST", "/v1/frame", "", nil, nil},
		{"media-type", "POST", "/v1/frames", goodJSON, []string{"Content-Type", "application/x-www-form-urlencoded"}, []string{"Accept-Post", "application/avro, application/json"}},
		{"no-media-type", "POST", "/v1/frames", goodJSON, nil, nil},
		{"coding", "POST", "/v1/frames", goodJSON, []string{"Content-Type", mediaJSON, "Content-Encoding", "br"}, []string{"Accept-Encoding", "gzip, zstd"}},
		{"field", "POST", "/v1/frames", strings.Replace(goodJSON, "[1,2,3,4]", "[1,2,3,[]]", 1), []string{"Content-Type", mediaJSON}, nil},
		{"syntax", "POST", "/v1/frames", goodJSON[:200], []string{"Content-Type", mediaJSON}, nil},
		{"frame", "POST", "/v1/frames", string(frames(nil, func(f *oona.Frame) { f.Seeds[2] = 0 })), []string{"Content-Type", mediaAvro}, nil},
		{"framing", "POST", "/v1/frames", "junk", []string{"Content-Type", mediaAvro}, nil},
	} {
		r := httptest.NewRequest(c.method, c.path, strings.NewReader(c.body))
		for i := 0; i < len(c.headers); i += 2 {
			r.Header.Set(c.headers[i], c.headers[i+1])
		}
		w := httptest.NewRecorder()
		s.Handler().ServeHTTP(w, r)
		for i := 0; i < len(c.answers); i += 2 {
			if got := w.Header().Get(c.answers[i]); got != c.answers[i+1] {
				t.Errorf("%s: header %s is %q", c.name, c.answers[i], got)
			}
		}
		decodeProblem(t, w)
		golden(t, c.name+".json", w.Body.Bytes())
	}
}

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", "problems", name)
	if os.Getenv("OONA_UPDATE_GOLDEN") != "" {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s: the problem is\n%s\nwant\n%s", name, got, want)
	}
}

// goldenLine compares a problem with its line in a file of many, each behind
// its name and a tab.
func goldenLine(t *testing.T, file, name, problem string) {
	t.Helper()
	path := filepath.Join("testdata", "problems", file)
	text, err := os.ReadFile(path)
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	lines := strings.SplitAfter(string(text), "\n")
	line := name + "\t" + problem
	at, found := slices.BinarySearchFunc(lines[:len(lines)-1], name, func(line, name string) int {
		before, _, _ := strings.Cut(line, "\t")
		return strings.Compare(before, name)
	})
	switch {
	case found && lines[at] == line:
	case os.Getenv("OONA_UPDATE_GOLDEN") == "":
		t.Errorf("the problem in %s is not\n%s", path, line)
	default:
		if found {
			lines = slices.Delete(lines, at, at+1)
		}
		if err := os.WriteFile(path, []byte(strings.Join(slices.Insert(lines, at, line), "")), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}
