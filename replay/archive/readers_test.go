package archive_test

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/bus"
	"github.com/morphogenetic/oona/replay/archive"
)

// dumped is a record as the programs of testdata/readers print it.
type dumped struct {
	Topic       string           `json:"topic"`
	Partition   int32            `json:"partition"`
	Incarnation oona.Incarnation `json:"incarnation"`
	Offset      int64            `json:"offset"`
	AppendTime  oona.Micros      `json:"append_time"`
	Key         *string          `json:"key"`
	Headers     [][2]string      `json:"headers"`
	Value       *string          `json:"value"`
}

func hexed(b []byte) *string {
	if b == nil {
		return nil
	}
	text := hex.EncodeToString(b)
	return &text
}

// archived returns the records of a file as they should be dumped.
func archived(t *testing.T, name string) (all []dumped) {
	t.Helper()
	r, err := archive.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Each(func(msg *message.Message, at bus.Position) error {
		d := dumped{at.Topic, at.Partition, at.Incarnation, at.Offset, at.Appended, hexed(at.Key), [][2]string{}, hexed(msg.Payload)}
		for _, name := range slices.Sorted(maps.Keys(msg.Metadata)) {
			d.Headers = append(d.Headers, [2]string{name, hex.EncodeToString([]byte(msg.Metadata[name]))})
		}
		all = append(all, d)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	return all
}

// dumpIsSame runs a program that dumps a file of each codec, and compares all fields.
func dumpIsSame(t *testing.T, program string, args ...string) {
	t.Helper()
	for _, codec := range archive.Codecs {
		dir := t.TempDir()
		name := filepath.Join(dir, write(t, dir, codec).Name)
		cmd := exec.CommandContext(t.Context(), program, append(args, name)...)
		cmd.Stderr = os.Stderr
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("%s: %v", codec, err)
		}
		var got []dumped
		for decoder := json.NewDecoder(bytes.NewReader(out)); decoder.More(); {
			var d dumped
			if err := decoder.Decode(&d); err != nil {
				t.Fatal(err)
			}
			got = append(got, d)
		}
		want := archived(t, name)
		if len(want) != len(records) {
			t.Fatalf("%s: %d records, want %d", codec, len(want), len(records))
		}
		a, b := asJSON(t, got), asJSON(t, want)
		if a != b {
			t.Errorf("%s: %s reads\n%s\nwant\n%s", codec, program, a, b)
		}
	}
}

func asJSON(t *testing.T, v any) string {
	t.Helper()
	text, err := json.MarshalIndent(v, "", " ")
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestFastavroReads(t *testing.T) {
	python, err := exec.LookPath("python3")
	if err == nil {
		err = exec.CommandContext(t.Context(), python, "-c", "import cramjam, fastavro").Run()
	}
	if err != nil && os.Getenv("OONA_REQUIRE_FASTAVRO") == "1" {
		t.Fatalf("OONA_REQUIRE_FASTAVRO=1, and python3 with fastavro and cramjam does not run: %v", err)
	} else if err != nil {
		t.Skipf("SKIPPED, ARCHIVES WERE NOT READ BY FASTAVRO: python3 with fastavro and cramjam does not run (%v); `make python` installs them", err)
	}
	dumpIsSame(t, python, filepath.Join("testdata", "readers", "dump.py"))
}

func TestJavaReads(t *testing.T) {
	skip := func(why string, err error) {
		t.Helper()
		if os.Getenv("OONA_REQUIRE_KAFKA") == "1" { // Kafka needs Java and Maven, too
			t.Fatalf("%s: %v", why, err)
		}
		t.Skipf("SKIPPED, ARCHIVES WERE NOT READ BY JAVA'S AVRO: %s: %v", why, err)
	}
	javac, err := exec.LookPath("javac")
	if err != nil {
		skip("there is no JDK", err)
	}
	lib, err := avroJars(t)
	if err != nil {
		skip("the jars of Java's Avro could not be fetched", err)
	}
	classes := t.TempDir()
	path := filepath.Join(lib, "*")
	if out, err := exec.CommandContext(t.Context(), javac, "-cp", path, "-d", classes, filepath.Join("testdata", "readers", "Dump.java")).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	dumpIsSame(t, "java", "-cp", path+string(os.PathListSeparator)+classes, "Dump")
}

// avroJars returns the directory of the jars of Java's Avro. They are fetched once.
func avroJars(t *testing.T) (string, error) {
	t.Helper()
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	lib := filepath.Join(cache, "oona", "avro-1.12.2")
	if _, err := os.Stat(lib); err == nil {
		return lib, nil
	}
	if err := os.MkdirAll(filepath.Dir(lib), 0o755); err != nil {
		return "", err
	}
	work, err := os.MkdirTemp(filepath.Dir(lib), "fetch-") //nolint:usetesting // on the disk of the final name, which an incomplete download must not have
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(work) //nolint:errcheck // it is in the cache
	cmd := exec.CommandContext(t.Context(), "mvn", "-B", "-q", "-f", filepath.Join("testdata", "readers", "pom.xml"), "dependency:copy-dependencies", "-DoutputDirectory="+filepath.Join(work, "lib"), "-DincludeScope=runtime")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Logf("%s", out)
		return "", err
	}
	if err := os.Rename(filepath.Join(work, "lib"), lib); err != nil {
		if _, missing := os.Stat(lib); missing != nil { // otherwise another process has fetched them
			return "", err
		}
	}
	return lib, nil
}
