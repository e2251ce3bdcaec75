package access

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"

	"gopkg.in/yaml.v3"
)

// list is the content of an access file.
type list struct {
	byHash map[Hash]*Identity
	byName map[string]*Identity // identities by the names of certificates
}

// FileError is a fault of an access file. Its text has no content of the file
// that may be a token.
type FileError struct {
	Line     int
	Identity string // "" if it is not about one, or if it has no name
	Reason   string
}

func (e *FileError) Error() string {
	if e.Identity == "" {
		return fmt.Sprintf("line %d: %s", e.Line, e.Reason)
	}
	return fmt.Sprintf("line %d: identity %s: %s", e.Line, e.Identity, e.Reason)
}

func wrong(at *yaml.Node, format string, args ...any) *FileError {
	return &FileError{Line: at.Line, Reason: fmt.Sprintf(format, args...)}
}

// errSyntax is wrapped if the file is not YAML. The reason that the YAML package gives
// is left out, as it may quote the file.
var errSyntax = errors.New("the file is not valid YAML")

// parse reads an access file. Its error wraps a *FileError or errSyntax.
func parse(content []byte) (*list, error) {
	decoder := yaml.NewDecoder(bytes.NewReader(content))
	var document yaml.Node
	if err := decoder.Decode(&document); err != nil {
		return nil, syntaxError(err)
	}
	var more yaml.Node
	switch err := decoder.Decode(&more); {
	case err == nil:
		return nil, wrong(&more, "a second YAML document begins here; put all identities into one")
	case !errors.Is(err, io.EOF):
		return nil, syntaxError(err)
	}
	return parseRoot(document.Content[0])
}

// syntaxError keeps the line of an error of the YAML package, and not its text.
func syntaxError(err error) error {
	var line int
	if _, rest, ok := strings.Cut(err.Error(), "line "); ok {
		if _, scanErr := fmt.Sscanf(rest, "%d:", &line); scanErr == nil {
			return fmt.Errorf("line %d: %w", line, errSyntax)
		}
	}
	return errSyntax
}

func parseRoot(root *yaml.Node) (*list, error) {
	var identities *yaml.Node
	err := eachKey(root, []string{"identities"}, func(_ string, value *yaml.Node) error {
		identities = value
		return nil
	})
	if err != nil {
		return nil, err
	}
	if identities == nil || identities.Kind != yaml.SequenceNode || len(identities.Content) == 0 {
		return nil, wrong(root, "there are no identities; list at least one under identities")
	}
	l := &list{byHash: make(map[Hash]*Identity), byName: make(map[string]*Identity)}
	names := make(map[string]bool)
	for _, node := range identities.Content {
		e, err := parseEntry(node)
		if err == nil && names[e.Name] {
			err = wrong(node, "another identity has this name; put both into one")
		}
		if err == nil {
			names[e.Name] = true
			err = l.add(e)
		}
		if err != nil {
			if fault, ok := errors.AsType[*FileError](err); ok {
				fault.Identity = e.Name
			}
			return nil, err
		}
	}
	return l, nil
}

// entry is an identity with its credentials.
type entry struct {
	Identity
	at           *yaml.Node
	tokens       []Hash
	certificates []string
}

var entryKeys = []string{"name", "tokens", "certificates", "runs", "producers", "roles"}

// parseEntry returns the entry even if it is wrong, with its name if it has one.
func parseEntry(node *yaml.Node) (e entry, err error) {
	e.at = node
	err = eachKey(node, entryKeys, func(key string, value *yaml.Node) (err error) {
		switch key {
		case "name":
			e.Name, err = scalar(value, checkName)
		case "tokens":
			e.tokens, err = scalars(value, parseHash)
		case "certificates":
			e.certificates, err = scalars(value, checkCertificate)
		case "runs":
			e.runs, err = scalars(value, checkPattern)
		case "producers":
			e.producers, err = scalars(value, checkPattern)
		case "roles":
			e.roles, err = scalars(value, parseRole)
		}
		return err
	})
	if err == nil {
		err = e.complete()
	}
	return e, err
}

// complete returns an error if something is missing in the entry.
func (e entry) complete() error {
	sends := e.Has(Frames)
	switch {
	case e.Name == "":
		return wrong(e.at, "the identity has no name")
	case len(e.tokens)+len(e.certificates) == 0:
		return wrong(e.at, "it has neither tokens nor certificates, so no client can be it")
	case len(e.roles) == 0:
		return wrong(e.at, "it has no roles, so it may do nothing; give some of %s", roleNames())
	case sends && (len(e.runs) == 0 || len(e.producers) == 0):
		return wrong(e.at, `it has the role frames, and runs or producers are missing; give patterns for both ("*" for all)`)
	case !sends && len(e.runs)+len(e.producers) > 0:
		return wrong(e.at, "runs and producers have no effect without the role frames; give the role, or remove them")
	}
	return nil
}

func (l *list) add(e entry) error {
	for _, hash := range e.tokens {
		if other := l.byHash[hash]; other != nil {
			return wrong(e.at, "one of its tokens is given twice (the other identity is %s)", other.Name)
		}
		l.byHash[hash] = &e.Identity
	}
	for _, name := range e.certificates {
		if other := l.byName[name]; other != nil {
			return wrong(e.at, "the name of one of its certificates is given twice (the other identity is %s)", other.Name)
		}
		l.byName[name] = &e.Identity
	}
	return nil
}

// eachKey calls do for each key of a mapping. It refuses keys that are unknown or
// repeated.
func eachKey(mapping *yaml.Node, known []string, do func(key string, value *yaml.Node) error) error {
	if mapping.Kind != yaml.MappingNode {
		return wrong(mapping, "this is not a mapping; give one with %s", strings.Join(known, ", "))
	}
	seen := make(map[string]bool)
	for i := 0; i+1 < len(mapping.Content); i += 2 {
		key, value := mapping.Content[i], mapping.Content[i+1]
		switch {
		case !slices.Contains(known, key.Value): // it may be a token in a wrong place
			return wrong(key, "there is an unknown key; the keys are %s", strings.Join(known, ", "))
		case seen[key.Value]:
			return wrong(key, "the key %s is given twice", key.Value)
		}
		seen[key.Value] = true
		if err := do(key.Value, value); err != nil {
			if fault, ok := errors.AsType[*FileError](err); ok {
				fault.Reason = key.Value + ": " + fault.Reason
			}
			return err
		}
	}
	return nil
}

// scalar returns the parsed value of a node that has one.
func scalar[T any](node *yaml.Node, parse func(string) (T, error)) (parsed T, err error) {
	if node.Kind != yaml.ScalarNode || node.Tag == "!!null" {
		return parsed, wrong(node, "this is not one plain value")
	}
	if parsed, err = parse(node.Value); err != nil {
		return parsed, wrong(node, "%v", err)
	}
	return parsed, nil
}

// scalars returns the parsed values of a list.
func scalars[T any](node *yaml.Node, parse func(string) (T, error)) (all []T, err error) {
	if node.Kind != yaml.SequenceNode {
		return nil, wrong(node, "this is not a list")
	}
	for _, value := range node.Content {
		parsed, err := scalar(value, parse)
		if err != nil {
			return nil, err
		}
		all = append(all, parsed)
	}
	return all, nil
}

const longestName = 128

// errToken is the error for a name that is a token. It does not quote the token.
var errToken = errors.New("a name looks like a token of oona keys token; put its hash under tokens, and keep the token out of this file")

// isToken reports whether a text looks like a token of NewToken, whole or nearly so.
func isToken(text string) bool { return strings.HasPrefix(text, tokenPrefix) && len(text) > 32 }

func checkName(text string) (string, error) {
	if isToken(text) {
		return "", errToken
	}
	for _, r := range text {
		if r <= ' ' || r > '~' {
			return "", errors.New("a name has only visible ASCII characters")
		}
	}
	if text == "" || len(text) > longestName {
		return "", fmt.Errorf("a name has 1 to %d characters", longestName)
	}
	return text, nil
}

// parseHash does not quote the text in its error, as it may be the token itself.
func parseHash(text string) (hash Hash, err error) {
	decoded, err := hex.DecodeString(text)
	if err != nil || len(decoded) != len(hash) {
		return hash, fmt.Errorf("a value is not a SHA-256 in hexadecimal (%d digits); give the hash of the token, as oona keys token prints it, and not the token", hex.EncodedLen(len(hash)))
	}
	return Hash(decoded), nil
}

func checkCertificate(text string) (string, error) {
	if text == "" {
		return "", errors.New("a name is empty; give the common name or a DNS name of a certificate")
	}
	if isToken(text) {
		return "", errToken
	}
	return text, nil
}

func checkPattern(text string) (string, error) {
	if _, err := path.Match(text, ""); err != nil || text == "" {
		return "", errors.New("a value is not a pattern; write for example exp-*")
	}
	return text, nil
}

func parseRole(text string) (Role, error) {
	if !slices.Contains(roles, Role(text)) {
		return "", fmt.Errorf("an unknown role is given; the roles are %s", roleNames())
	}
	return Role(text), nil
}

func roleNames() string {
	names := make([]string, len(roles))
	for i, role := range roles {
		names[i] = string(role)
	}
	return strings.Join(names, ", ")
}
