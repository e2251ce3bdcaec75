package access

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/morphogenetic/oona"
)

const secretToken = "oona_this-is-the-token-itself-and-never-printed"

// secretWord is a token that does not look like one of Oona's.
const secretWord = "SECRETWORD"

// good is an access file with two identities.
var good = `identities:
  - name: trainers
    tokens:
      - ` + HashOf("old").String() + `
      - ` + strings.ToUpper(HashOf("new").String()) + `
    certificates: [trainer.test]
    runs: ["exp-*", prod]
    producers: ["rank-?"]
    roles: [frames, tensors]
  - name: prometheus
    tokens: [` + HashOf("scrape").String() + `]
    roles: [metrics]
`

func TestParse(t *testing.T) {
	l, err := parse([]byte(good))
	if err != nil {
		t.Fatal(err)
	}
	trainers, prometheus := l.byHash[HashOf("old")], l.byHash[HashOf("scrape")]
	if trainers == nil || prometheus == nil || l.byHash[HashOf("new")] != trainers || l.byName["trainer.test"] != trainers || len(l.byHash) != 3 || len(l.byName) != 1 {
		t.Fatalf("parsed %+v", l)
	}
	for _, test := range []struct {
		what      string
		got, want bool
	}{
		{"trainers send frames", trainers.Has(Frames), true},
		{"trainers read metrics", trainers.Has(Metrics), false},
		{"prometheus reads metrics", prometheus.Has(Metrics), true},
		{"prometheus reads profiles", prometheus.Has(Profile), false},
		{"a run by its pattern", trainers.Run("exp-17.a:b"), true},
		{"a run by its name", trainers.Run("prod"), true},
		{"a run that begins like one", trainers.Run("prod-2"), false},
		{"a run that ends like one", trainers.Run("my-exp-1"), false},
		{"a producer", trainers.Producer("rank-3"), true},
		{"a producer with a longer name", trainers.Producer("rank-33"), false},
		{"prometheus and runs", prometheus.Run("prod"), false},
		{"prometheus and producers", prometheus.Producer("rank-3"), false},
	} {
		if test.got != test.want {
			t.Errorf("%s: %t", test.what, test.got)
		}
	}
}

// Errors say where the fault is, and do not quote what may be a token.
func TestParseRefuses(t *testing.T) {
	hash := HashOf("x").String()
	entry := func(fields string) string { return "identities:\n- name: a\n  " + fields + "\n" }
	for name, test := range map[string]struct {
		file     string
		line     int
		identity string
	}{
		"no mapping":               {"- a\n", 1, ""},
		"unknown key":              {"users: []\n", 1, ""},
		"a repeated key":           {"identities: []\nidentities: []\n", 2, ""},
		"no identities":            {"identities: []\n", 1, ""},
		"identities are null":      {"identities:\n", 1, ""},
		"an identity is a text":    {"identities: [" + secretToken + "]\n", 1, ""},
		"two documents":            {good + "---\na: b\n", 13, ""},
		"no name":                  {"identities:\n- tokens: [" + hash + "]\n  roles: [metrics]\n", 2, ""},
		"a name with a line end":   {"identities:\n- name: \"a\\nb\"\n", 2, ""},
		"a token itself":           {entry("tokens: [" + secretToken + "]\n  roles: [metrics]"), 3, "a"},
		"a token as a key":         {entry(secretToken + ": " + hash), 3, "a"},
		"a token as a name":        {"identities:\n- name: " + secretToken + "\n  roles: [metrics]\n", 2, ""},
		"a token as a certificate": {entry("certificates: [" + secretToken + "]\n  roles: [metrics]"), 3, "a"},
		"a token as a pattern":     {entry("runs: [\"[" + secretToken + "\"]"), 3, "a"},
		"a certificate twice":      {entry("certificates: [" + secretWord + ", " + secretWord + "]\n  roles: [metrics]"), 2, "a"},
		"a token below a key":      {entry("tokens:\n    " + secretToken + ": x"), 4, "a"},
		"a hash that is too short": {entry("tokens: [" + hash[2:] + "]\n  roles: [metrics]"), 3, "a"},
		"a hash that is null":      {entry("tokens: [null]\n  roles: [metrics]"), 3, "a"},
		"no credentials":           {entry("roles: [metrics]"), 2, "a"},
		"no roles":                 {entry("tokens: [" + hash + "]"), 2, "a"},
		"an unknown role":          {entry("tokens: [" + hash + "]\n  roles: [admin]"), 4, "a"},
		"frames without runs":      {entry("tokens: [" + hash + "]\n  producers: [\"*\"]\n  roles: [frames]"), 2, "a"},
		"frames without producers": {entry("tokens: [" + hash + "]\n  runs: [\"*\"]\n  roles: [frames]"), 2, "a"},
		"runs without frames":      {entry("tokens: [" + hash + "]\n  runs: [\"*\"]\n  roles: [metrics]"), 2, "a"},
		"a pattern":                {entry("tokens: [" + hash + "]\n  runs: [\"[\"]\n  producers: [\"*\"]\n  roles: [frames]"), 4, "a"},
		"an empty pattern":         {entry("tokens: [" + hash + "]\n  runs: [\"\"]\n  producers: [\"*\"]\n  roles: [frames]"), 4, "a"},
		"an alias":                 {"identities:\n- &x\n  name: a\n  tokens: [" + hash + "]\n  roles: [metrics]\n- *x\n", 6, ""},
		"a name that is repeated":  {good + "  - name: prometheus\n    tokens: [" + hash + "]\n    roles: [metrics]\n", 13, "prometheus"},
		"a token of another":       {good + "  - name: b\n    tokens: [" + HashOf("old").String() + "]\n    roles: [metrics]\n", 13, "b"},
		"a certificate of another": {good + "  - name: b\n    certificates: [trainer.test]\n    roles: [metrics]\n", 13, "b"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := parse([]byte(test.file))
			fault, ok := errors.AsType[*FileError](err)
			if !ok || fault.Line != test.line || fault.Identity != test.identity {
				t.Errorf("the error is %v; want line %d, identity %q", err, test.line, test.identity)
			}
			if strings.Contains(err.Error(), secretToken) || strings.Contains(err.Error(), hash) || strings.Contains(err.Error(), secretWord) {
				t.Errorf("the error quotes a token or a hash: %v", err)
			}
		})
	}
	for _, file := range []string{"a: b: " + secretToken, "*" + secretToken, "{", "a: \"" + secretToken, "!!" + secretToken + " x: [", "%" + secretToken + "\n"} {
		_, err := parse([]byte(file))
		if !errors.Is(err, errSyntax) || strings.Contains(err.Error(), secretToken) {
			t.Errorf("%q: the error is %v", file, err)
		}
	}
}

func TestOpenNamesTheSetting(t *testing.T) {
	file := filepath.Join(t.TempDir(), "access.yaml")
	if err := os.WriteFile(file, []byte("identities: []\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := Open(nil, "--listen-access-file", file)
	field, ok := errors.AsType[*oona.FieldError](err)
	if _, named := errors.AsType[*FileError](err); !ok || field.Field != "--listen-access-file" || !named {
		t.Errorf("the error is %v", err)
	}
}

// No content makes the decoder panic, and what it accepts identifies clients.
func FuzzAccessFile(f *testing.F) {
	for _, seed := range []string{good, "", "identities:\n", "identities: [{}]\n", "a: &a [*a]\n", "? {a: b}\n: c\n", "identities:\n- name: !!binary aGk=\n", "---\n...\n---\n"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, content []byte) {
		l, err := parse(content)
		if err != nil {
			return
		}
		if len(l.byHash)+len(l.byName) == 0 {
			t.Error("a file without credentials is accepted")
		}
		for _, identity := range l.byHash {
			if identity.Name == "" || len(identity.roles) == 0 || identity.Has(Frames) && len(identity.runs) == 0 {
				t.Errorf("%+v is accepted", identity)
			}
			identity.Run("a") // a pattern that was accepted can be used
		}
	})
}

// Whoever copies an example must not give access to everyone who guesses its token.
func TestExamplesHaveTheHashOfNoTokenThatIsKnown(t *testing.T) {
	for _, file := range []string{"doc.go", "../../docs/security.md"} {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, token := range []string{"", "test", "token", "secret", "password", "TOKEN", "oona", "a", "x", "foo", "hello", "trainer", "trainers"} {
			if hash := HashOf(token).String(); strings.Contains(string(text), hash) {
				t.Errorf("%s has %s, the hash of %q", file, hash, token)
			}
		}
	}
}
