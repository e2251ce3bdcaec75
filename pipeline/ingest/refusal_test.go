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
	"github.com/morphogenetic/oona/intake"
	"github.com/morphogenetic/oona/schemas/avro"
)

const noFrame = -1

// refused posts a bad body. It checks that nothing was published, that the problem has
// the frame and the field, and that the next good request is accepted. It returns the body
// of the answer.
func refused(t *testing.T, mediaType string, body []byte, code int, why intake.Reason, frame int, field string, headers ...string) string {
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
	if p.Status != code || p.Type != "urn:oona:problem:"+string(why) || got != frame || p.Field != field {
		t.Errorf("problem is %s\nwant %d %s, frame %d, field %q", w.Body, code, why, frame, field)
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
		reason intake.Reason
		frame  int
		field  string
	}{
		"empty":                 {nil, 400, intake.ReasonUndecodable, noFrame, ""},
		"undecodable bytes":     {[]byte("rubbish"), 400, intake.ReasonUndecodable, 0, "framing"},
		"only the marker":       {good[:2], 400, intake.ReasonUndecodable, 0, "framing"},
		"wrong fingerprint":     {corrupt(5, 0xff), 400, intake.ReasonUndecodable, 0, "fingerprint"},
		"another record":        {avro.AppendTick(nil, oona.Tick{Worker: "w", WrittenAt: 1}), 400, intake.ReasonUndecodable, 0, "fingerprint"},
		"cut off":               {good[:len(good)-1], 400, intake.ReasonUndecodable, 0, "tensors"},
		"NUL in an id":          {frame(func(f *oona.Frame) { f.Run = "a\x00" }), 400, intake.ReasonInvalid, 0, "run_id"},
		"id that is not UTF-8":  {frame(func(f *oona.Frame) { f.Layer = "enc\xff" }), 400, intake.ReasonInvalid, 0, "layer_id"},
		"name not UTF-8":        {frame(func(f *oona.Frame) { f.Metrics[1].Name = "\xc0\xaf" }), 400, intake.ReasonInvalid, 0, "metrics[1].name"},
		"empty id":              {frame(func(f *oona.Frame) { f.Producer = "" }), 400, intake.ReasonInvalid, 0, "producer_id"},
		"time zero":             {frame(func(f *oona.Frame) { f.ObservedAt = 0 }), 400, intake.ReasonInvalid, 0, "observed_at"},
		"least time":            {frame(func(f *oona.Frame) { f.ObservedAt = math.MinInt64 }), 400, intake.ReasonInvalid, 0, "observed_at"},
		"negative epoch":        {frame(func(f *oona.Frame) { f.Epoch = -1 }), 400, intake.ReasonInvalid, 0, "producer_epoch"},
		"negative step":         {frame(func(f *oona.Frame) { f.Step = -1 }), 400, intake.ReasonInvalid, 0, "step"},
		"a million seeds":       {frame(func(f *oona.Frame) { f.Metrics = nil; manySeeds(1_000_000)(f) }), 413, intake.ReasonTooLarge, 0, "seed_ids"},
		"a configuration":       {avro.AppendConfiguration(nil, oona.WindowConfiguration{Generation: 1}), 400, intake.ReasonUndecodable, 0, "fingerprint"},
		"a rollup":              {avro.AppendRollup(nil, &oona.Rollup{}), 400, intake.ReasonUndecodable, 0, "fingerprint"},
		"HTML":                  {[]byte("<!DOCTYPE html><html>"), 415, reasonMediaType, noFrame, ""},
		"gzip untold":           {gzipped(good), 415, reasonMediaType, noFrame, ""},
		"zstd untold":           {zstandarded(t, good), 415, reasonMediaType, noFrame, ""},
		"block's size lies":     {arrays(good, -2, 3, 1, 2, 0), 400, intake.ReasonUndecodable, 0, "seed_ids"},
		"block's negative size": {arrays(good, -2, -3, 1, 2, 0), 400, intake.ReasonUndecodable, 0, "seed_ids"},
		"block of 2^40 bytes":   {arrays(good, -2, 1<<40, 1, 2, 0), 400, intake.ReasonUndecodable, 0, "seed_ids"},
		"least count":           {arrays(good, math.MinInt64, 1, 0), 400, intake.ReasonUndecodable, 0, "seed_ids"},
		"container cut off":     {containerOf(t, good)[:1000], 400, intake.ReasonUndecodable, 0, "metadata"},
		"container of ticks":    {containerWith(t, "kasmina.telemetry.Tick"), 400, intake.ReasonUndecodable, 0, "avro.schema"},
		"container of none":     {containerOf(t), 400, intake.ReasonUndecodable, noFrame, ""},
		"container's second":    {containerOf(t, good, frame(func(f *oona.Frame) { f.States[0] = 99 }), good), 400, intake.ReasonInvalid, 1, "states[0]"},
		"container's end":       {append(containerOf(t, good), 2), 400, intake.ReasonUndecodable, 1, "block"},
		"container too large":   {containerOf(t, good, frame(manySeeds(1000)), frame(manySeeds(1000)), frame(manySeeds(1000)), frame(manySeeds(1000)), frame(manySeeds(1000)), frame(manySeeds(1000)), frame(manySeeds(1000)), frame(manySeeds(1000))), 413, intake.ReasonTooLarge, noFrame, ""},
		"container of many":     {containerOf(t, slices.Repeat([][]byte{good}, 17)...), 413, intake.ReasonTooLarge, noFrame, ""},
		"registry framing":      {append([]byte{0, 0, 0, 0, 7}, good[10:]...), 415, reasonMediaType, noFrame, ""},
		"JSON":                  {[]byte(" " + goodJSON), 415, reasonMediaType, noFrame, ""},
		"trailing garbage":      {append(bytes.Clone(good), "\r\n"...), 400, intake.ReasonUndecodable, 1, "framing"},
		"huge count of seeds":   {hugeCount("seed_ids"), 400, intake.ReasonUndecodable, 0, "seed_ids"},
		"huge length of an id":  {append(bytes.Clone(good[:10]), binary.AppendVarint(nil, math.MaxInt64)...), 400, intake.ReasonUndecodable, 0, "run_id"},
		"mismatched states":     {frame(func(f *oona.Frame) { f.States = f.States[:3] }), 400, intake.ReasonInvalid, 0, "states"},
		"mismatched values":     {frame(func(f *oona.Frame) { f.Metrics[1].Values = append(f.Metrics[1].Values, 1) }), 400, intake.ReasonInvalid, 0, "metrics[1].values"},
		"duplicate seed":        {frame(func(f *oona.Frame) { f.Seeds[3] = 1 }), 400, intake.ReasonInvalid, 0, "seed_ids[3]"},
		"negative seed":         {frame(func(f *oona.Frame) { f.Seeds[0] = -1 }), 400, intake.ReasonInvalid, 0, "seed_ids[0]"},
		"unknown ordinal":       {frame(func(f *oona.Frame) { f.States[2] = 11 }), 400, intake.ReasonInvalid, 0, "states[2]"},
		"year 1":                {frame(func(f *oona.Frame) { f.ObservedAt = -62_135_596_800_000_000 }), 400, intake.ReasonInvalid, 0, "observed_at"},
		"year 9999":             {frame(func(f *oona.Frame) { f.ObservedAt = 253_402_300_799_000_000 }), 400, intake.ReasonInvalid, 0, "observed_at"},
		"milliseconds":          {frame(func(f *oona.Frame) { f.ObservedAt /= 1000 }), 400, intake.ReasonInvalid, 0, "observed_at"},
		"negative sequence":     {frame(func(f *oona.Frame) { f.Sequence = -1 }), 400, intake.ReasonInvalid, 0, "sequence"},
		"newline in an id":      {frame(func(f *oona.Frame) { f.Run = "a\nb" }), 400, intake.ReasonInvalid, 0, "run_id"},
		"quote in an id":        {frame(func(f *oona.Frame) { f.Layer = `a"b` }), 400, intake.ReasonInvalid, 0, "layer_id"},
		"long id":               {frame(func(f *oona.Frame) { f.Producer = oona.ProducerID(strings.Repeat("p", 129)) }), 400, intake.ReasonInvalid, 0, "producer_id"},
		"no seeds":              {frame(func(f *oona.Frame) { f.Seeds, f.States, f.Metrics = nil, nil, nil }), 400, intake.ReasonInvalid, 0, "seed_ids"},
		"bad second of three":   {frames(nil, func(f *oona.Frame) { f.States[0] = 99 }, nil), 400, intake.ReasonInvalid, 1, "states[0]"},
		"bad second bytes":      {append(bytes.Clone(good), good[:13]...), 400, intake.ReasonUndecodable, 1, "run_id"},
		"too many readings":     {frame(manySeeds(1001)), 413, intake.ReasonTooLarge, 0, "seed_ids"},
		"too many metrics":      {frame(manyMetrics(9)), 413, intake.ReasonTooLarge, 0, "metrics"},
		"too many frames":       {frames(make([]func(*oona.Frame), 17)...), 413, intake.ReasonTooLarge, noFrame, ""},
		"too many dimensions": {frame(func(f *oona.Frame) {
			f.Tensors = []oona.Tensor{{Name: "w", Seed: 1, DType: "uint8", Shape: slices.Repeat([]int64{1}, 65), Data: make([]byte, 1)}}
		}), 413, intake.ReasonTooLarge, 0, "tensors[0].shape"},
		"tensor's shape": {frame(func(f *oona.Frame) {
			f.Tensors = []oona.Tensor{{Name: "w", Seed: 1, DType: "float32", Shape: []int64{3}, Data: make([]byte, 8)}}
		}), 400, intake.ReasonInvalid, 0, "tensors[0].shape"},
	} {
		t.Run(name, func(t *testing.T) {
			goldenLine(t, "avro.txt", name, refused(t, mediaAvro, c.body, c.code, c.reason, c.frame, c.field))
		})
	}
}

// hugeCount returns a frame that declares an array with 2^40 entries.
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
		reason intake.Reason
		frame  int
		field  string
	}{
		"empty":                   {"", 400, intake.ReasonUndecodable, noFrame, ""},
		"blank":                   {" \r\n\t", 400, intake.ReasonUndecodable, noFrame, ""},
		"HTML":                    {"<html>", 415, reasonMediaType, noFrame, ""},
		"Avro":                    {string(frames(nil)), 415, reasonMediaType, noFrame, ""},
		"a container":             {string(containerOf(t, frames(nil))), 415, reasonMediaType, noFrame, ""},
		"gzip untold":             {string(gzipped([]byte(goodJSON))), 415, reasonMediaType, noFrame, ""},
		"registry framing":        {"\x00\x00\x00\x00\x07", 415, reasonMediaType, noFrame, ""},
		"a form":                  {"run_id=digits", 400, intake.ReasonUndecodable, noFrame, ""},
		"NUL":                     {replace("digits", `dig\u0000its`), 400, intake.ReasonInvalid, 0, "run_id"},
		"half a surrogate":        {replace("digits", `dig\ud800its`), 400, intake.ReasonInvalid, 0, "run_id"},
		"half in a claim":         {tensors(`{"name":"w","seed_id":1,"dtype":"uint8","shape":[1],"data":{"bucket":"b","key":"k\udc00","size":1,"sha256":"` + strings.Repeat("0", 64) + `"}}`), 400, intake.ReasonInvalid, 0, "tensors[0].data.key"},
		"a million arrays":        {strings.Repeat("[", 1_000_000), 400, intake.ReasonUndecodable, noFrame, ""},
		"deep in a field":         {replace("[0,1,2,3]", strings.Repeat("[", 5000)+strings.Repeat("]", 5000)), 400, intake.ReasonInvalid, 0, "seed_ids[0]"},
		"deep in what is unknown": {replace(`"step":7`, `"x":`+strings.Repeat("[", 5000)+strings.Repeat("]", 5000)), 400, intake.ReasonInvalid, 0, "x"},
		"a million seeds":         {replace("[0,1,2,3]", "["+strings.Repeat("0,", 999_999)+"0]"), 413, intake.ReasonTooLarge, 0, "seed_ids"},
		"time zero":               {replace("1790000001000000", "0"), 400, intake.ReasonInvalid, 0, "observed_at"},
		"negative epoch":          {replace("1790000000000000", "-1"), 400, intake.ReasonInvalid, 0, "producer_epoch"},
		"negative seed":           {replace("[0,1,2,3]", "[-1,1,2,3]"), 400, intake.ReasonInvalid, 0, "seed_ids[0]"},
		"a number without end":    {replace(`"step":7`, `"step":`+strings.Repeat("9", 100_000)), 400, intake.ReasonInvalid, 0, "step"},
		"too many metrics":        {replace(`{"name":"blend"`, strings.Repeat(`{"name":"m","values":[]},`, 8)+`{"name":"blend"`), 413, intake.ReasonTooLarge, 0, "metrics"},
		"cut off":                 {goodJSON[:90], 400, intake.ReasonUndecodable, noFrame, ""},
		"syntax":                  {replace(`[0,1,2,3]`, `[0,1,,3]`), 400, intake.ReasonUndecodable, noFrame, ""},
		"two objects":             {goodJSON + goodJSON, 400, intake.ReasonUndecodable, noFrame, ""},
		"a bare NaN":              {replace("[1,2,3,4]", "[1,2,3,NaN]"), 400, intake.ReasonUndecodable, noFrame, ""},
		"not UTF-8":               {replace("digits", "dig\xffits"), 400, intake.ReasonUndecodable, noFrame, ""},
		"no frames":               {"[]", 400, intake.ReasonUndecodable, noFrame, ""},
		"a number":                {"7", 400, intake.ReasonInvalid, 0, ""},
		"a number in array":       {"[" + goodJSON + ",null]", 400, intake.ReasonInvalid, 1, ""},
		"nested arrays":           {"[[" + goodJSON + "]]", 400, intake.ReasonInvalid, 0, ""},
		"unknown field":           {replace(`"step"`, `"stepp"`), 400, intake.ReasonInvalid, 0, "stepp"},
		"other case":              {replace(`"step"`, `"Step"`), 400, intake.ReasonInvalid, 0, "Step"},
		"unprintable field":       {replace(`"step"`, `"\u0001\n"`), 400, intake.ReasonInvalid, 0, `"\x01\n"`},
		"empty field":             {replace(`"step"`, `""`), 400, intake.ReasonInvalid, 0, `""`},
		"given twice":             {replace(`"step":7`, `"step":7,"step":8`), 400, intake.ReasonInvalid, 0, "step"},
		"missing sequence":        {replace(`"sequence":0,`, ``), 400, intake.ReasonInvalid, 0, "sequence"},
		"missing states":          {replace(`"states"`, `"tensors"`), 400, intake.ReasonInvalid, 0, "tensors[0]"},
		"id of wrong type":        {replace(`"digits"`, `7`), 400, intake.ReasonInvalid, 0, "run_id"},
		"id with newline":         {replace("enc.1", `enc\n1`), 400, intake.ReasonInvalid, 0, "layer_id"},
		"id with quote":           {replace("enc.1", `enc\"1`), 400, intake.ReasonInvalid, 0, "layer_id"},
		"null timeline":           {replace(`"step":7`, `"timeline":null`), 400, intake.ReasonInvalid, 0, "timeline"},
		"fractional step":         {replace(`"step":7`, `"step":7.5`), 400, intake.ReasonInvalid, 0, "step"},
		"step beyond 64 bits":     {replace(`"step":7`, `"step":9223372036854775808`), 400, intake.ReasonInvalid, 0, "step"},
		"step as text":            {replace(`"step":7`, `"step":"7"`), 400, intake.ReasonInvalid, 0, "step"},
		"year 1":                  {replace("1790000001000000", "-62135596800000000"), 400, intake.ReasonInvalid, 0, "observed_at"},
		"year 9999":               {replace("1790000001000000", "253402300799000000"), 400, intake.ReasonInvalid, 0, "observed_at"},
		"seed beyond 32 bits":     {replace("[0,1,2,3]", "[0,1,2,2147483648]"), 400, intake.ReasonInvalid, 0, "seed_ids[3]"},
		"seed is null":            {replace("[0,1,2,3]", "[0,1,2,null]"), 400, intake.ReasonInvalid, 0, "seed_ids[3]"},
		"seeds are an object":     {replace("[0,1,2,3]", "{}"), 400, intake.ReasonInvalid, 0, "seed_ids"},
		"duplicate seed":          {replace("[0,1,2,3]", "[3,1,2,3]"), 400, intake.ReasonInvalid, 0, "seed_ids[3]"},
		"unknown state":           {replace("DORMANT", "ASLEEP"), 400, intake.ReasonInvalid, 0, "states[0]"},
		"unknown ordinal":         {replace(`"training",3`, `"training",11`), 400, intake.ReasonInvalid, 0, "states[2]"},
		"ordinal 256":             {replace(`"training",3`, `"training",256`), 400, intake.ReasonInvalid, 0, "states[2]"},
		"negative ordinal":        {replace(`"training",3`, `"training",-1`), 400, intake.ReasonInvalid, 0, "states[2]"},
		"state of wrong type":     {replace(`"training",3`, `"training",true`), 400, intake.ReasonInvalid, 0, "states[2]"},
		"mismatched values":       {replace("[0,2.5e-1,0.5,1]", "[0]"), 400, intake.ReasonInvalid, 0, "metrics[1].values"},
		"value of wrong type":     {replace("[0,2.5e-1,0.5,1]", "[0,1,2,{}]"), 400, intake.ReasonInvalid, 0, "metrics[1].values[3]"},
		"value as text":           {replace("[0,2.5e-1,0.5,1]", `[0,1,2,"1"]`), 400, intake.ReasonInvalid, 0, "metrics[1].values[3]"},
		"value too great":         {replace("[0,2.5e-1,0.5,1]", "[0,1,2,1e309]"), 400, intake.ReasonInvalid, 0, "metrics[1].values[3]"},
		"small fraction":          {replace(`"step":7`, `"step":100000000000000000001e-1`), 400, intake.ReasonInvalid, 0, "step"},
		"beyond 64 bits by power": {replace(`"step":7`, `"step":1e19`), 400, intake.ReasonInvalid, 0, "step"},
		"beyond any power":        {replace(`"step":7`, `"step":1e99999999999999999999`), 400, intake.ReasonInvalid, 0, "step"},
		"below any power":         {replace(`"step":7`, `"step":1e-99999999999999999999`), 400, intake.ReasonInvalid, 0, "step"},
		"seed beyond by power":    {replace("[0,1,2,3]", "[0,1,2,1e10]"), 400, intake.ReasonInvalid, 0, "seed_ids[3]"},
		"metric's field":          {replace(`"name":"blend"`, `"named":"blend"`), 400, intake.ReasonInvalid, 0, "metrics[1].named"},
		"metric repeated":         {replace(`"blend"`, `"gradient_norm"`), 400, intake.ReasonInvalid, 0, "metrics[1].name"},
		"bad second":              {"[" + goodJSON + "," + replace("[1,2,3,4]", "[1,2,3,false]") + "," + goodJSON + "]", 400, intake.ReasonInvalid, 1, "metrics[0].values[3]"},
		"too many readings":       {replace("[0,1,2,3]", "["+strings.Repeat("0,", 1000)+"0]"), 413, intake.ReasonTooLarge, 0, "seed_ids"},
		"a byte order mark":       {"\ufeff" + goodJSON, 400, intake.ReasonUndecodable, noFrame, ""},
		"too many states":         {replace(`["DORMANT"`, "["+strings.Repeat("0,", 1000)+`"DORMANT"`), 413, intake.ReasonTooLarge, 0, "states"},
		"too many values":         {replace("[0,2.5e-1,0.5,1]", "["+strings.Repeat("0,", 1000)+"0]"), 413, intake.ReasonTooLarge, 0, "metrics[1].values"},
		"too many tensors":        {tensors(strings.Repeat(`{"name":"w","seed_id":1,"dtype":"uint8","shape":[1],"data":"AA=="},`, 4) + `{}`), 413, intake.ReasonTooLarge, 0, "tensors"},
		"too many dimensions":     {tensors(`{"name":"w","seed_id":1,"dtype":"uint8","shape":[` + strings.Repeat("1,", 64) + `1],"data":"AA=="}`), 413, intake.ReasonTooLarge, 0, "tensors[0].shape"},
		"too many frames":         {"[" + strings.Repeat(goodJSON+",", 16) + goodJSON + "]", 413, intake.ReasonTooLarge, noFrame, ""},
		"tensor not base64":       {tensors(`{"name":"w","seed_id":1,"dtype":"uint8","shape":[1],"data":"?"}`), 400, intake.ReasonInvalid, 0, "tensors[0].data"},
		"tensor data null":        {tensors(`{"name":"w","seed_id":1,"dtype":"uint8","shape":[1],"data":null}`), 400, intake.ReasonInvalid, 0, "tensors[0].data"},
		"tensor of no seed":       {tensors(`{"name":"w","seed_id":9,"dtype":"uint8","shape":[1],"data":"AA=="}`), 400, intake.ReasonInvalid, 0, "tensors[0].seed_id"},
		"claim cut short":         {tensors(`{"name":"w","seed_id":1,"dtype":"uint8","shape":[1],"data":{"bucket":"b","key":"k","size":1}}`), 400, intake.ReasonInvalid, 0, "tensors[0].data.sha256"},
		"claim's digest":          {tensors(`{"name":"w","seed_id":1,"dtype":"uint8","shape":[1],"data":{"bucket":"b","key":"k","size":1,"sha256":"00"}}`), 400, intake.ReasonInvalid, 0, "tensors[0].data.sha256"},
		"claim's digest hex":      {tensors(`{"name":"w","seed_id":1,"dtype":"uint8","shape":[1],"data":{"bucket":"b","key":"k","size":1,"sha256":"` + strings.Repeat("zz", 32) + `"}}`), 400, intake.ReasonInvalid, 0, "tensors[0].data.sha256"},
	} {
		t.Run(name, func(t *testing.T) {
			goldenLine(t, "json.txt", name, refused(t, mediaJSON, []byte(c.body), c.code, c.reason, c.frame, c.field))
		})
	}
}

func TestEncodedSize(t *testing.T) {
	onBus := newBus(t)
	s := newStage(t, onBus, func(c *Config) { c.MaxMessageBytes = recordOverhead + 2000 })
	w := post(s, mediaAvro, frames(nil, manySeeds(1000)))
	p := decodeProblem(t, w)
	if p.Status != 413 || p.Frame == nil || *p.Frame != 1 || !strings.Contains(p.Detail, "at most 135 seeds each") {
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
		if p := decodeProblem(t, w); p.Status != 413 || !strings.Contains(p.Detail, fmt.Sprintf("larger than %d (--max-body-bytes)", len(body))) {
			t.Errorf("%s: problem is %s", name, w.Body)
		}
	}
}

// The answers to wrong requests, byte for byte. OONA_UPDATE_GOLDEN=1 rewrites them.
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

// goldenLine compares a problem with its line in a file. A line has the name, a tab and
// the problem.
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
