package worker

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"reflect"
	"slices"
	"strings"

	"github.com/alecthomas/kong"
	"gopkg.in/yaml.v3"
)

// ConfigFile is a flag that names a YAML file of settings. Its keys are the names of
// the program's flags, without the leading dashes.
type ConfigFile string

// BeforeResolve is called by kong when the flag or its variable is given.
func (ConfigFile) BeforeResolve(ctx *kong.Context, trace *kong.Path) error {
	path, ok := ctx.FlagValue(trace.Flag).(ConfigFile)
	if !ok || path == "" {
		return nil
	}
	f, err := readFile(string(path), ctx.Model.Node)
	if err != nil {
		return err
	}
	ctx.AddResolver(f)
	return nil
}

// file is a configuration file. It implements kong.Resolver.
type file struct {
	path   string
	values map[string]*yaml.Node // values by the name of the flag
}

// readFile reads a configuration file. It refuses keys that are not flags of the
// program.
func readFile(path string, program *kong.Node) (*file, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		if wrong, ok := errors.AsType[*fs.PathError](err); ok {
			err = wrong.Err // the path is there already
		}
		return nil, fmt.Errorf("%s: cannot be read: %w; give --config (or $OONA_CONFIG) the path of a file, or leave it out", path, err)
	}
	f := &file{path: path, values: map[string]*yaml.Node{}}
	decoder := yaml.NewDecoder(bytes.NewReader(data))
	var document yaml.Node
	if err := decoder.Decode(&document); errors.Is(err, io.EOF) {
		return f, nil
	} else if err != nil {
		return nil, fmt.Errorf("%s: is not valid YAML: %s; write settings as \"log-level: debug\", each on a line of its own", path, strings.TrimPrefix(err.Error(), "yaml: "))
	}
	if err := decoder.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("%s: has more than one YAML document; put all settings into one", path)
	}
	root := document.Content[0]
	if root.Kind == yaml.ScalarNode && root.Tag == "!!null" {
		return f, nil
	}
	if root.Kind != yaml.MappingNode {
		return nil, fmt.Errorf("%s:%d: is not a mapping; write settings as \"log-level: debug\"", path, root.Line)
	}
	return f, f.fill(root, settable(program))
}

// settable returns the names that a file may set.
func settable(program *kong.Node) map[string]bool {
	names := map[string]bool{}
	everyFlag(program, func(flag *kong.Flag) {
		if !commandLineOnly(flag) {
			names[flag.Name] = true
		}
	})
	return names
}

// commandLineOnly reports whether a flag is not a setting and so not allowed in files.
func commandLineOnly(flag *kong.Flag) bool {
	switch flag.Target.Interface().(type) {
	case VersionFlag, ConfigFile, CheckFlag, ReadyFlag:
		return true
	}
	return flag.Name == "help"
}

func (f *file) fill(root *yaml.Node, names map[string]bool) error {
	var unknown []string
	for i := 0; i+1 < len(root.Content); i += 2 {
		key, value := root.Content[i], root.Content[i+1]
		switch {
		case !names[key.Value]:
			unknown = append(unknown, f.unknownKey(key, names))
		case f.values[key.Value] != nil:
			return fmt.Errorf("%s:%d: repeats the key %s", f.path, key.Line, key.Value)
		default:
			f.values[key.Value] = value
		}
	}
	if len(unknown) > 0 {
		return fmt.Errorf("%s; the keys are the names of the flags that -h lists", strings.Join(unknown, "; "))
	}
	return nil
}

func (f *file) unknownKey(key *yaml.Node, names map[string]bool) string {
	text := fmt.Sprintf("%s:%d: unknown key %q", f.path, key.Line, key.Value)
	if dashed := strings.ToLower(strings.ReplaceAll(key.Value, "_", "-")); names[dashed] {
		text += fmt.Sprintf(" (write %s)", dashed)
	}
	return text
}

// Validate does nothing, as readFile has checked the keys.
func (f *file) Validate(*kong.Application) error { return nil }

// Resolve returns the value of a flag in the file, or nil if another source has it.
// It looks at the environment, which comes first, as kong asks resolvers before it
// does so itself.
func (f *file) Resolve(_ *kong.Context, _ *kong.Path, flag *kong.Flag) (any, error) {
	node := f.values[flag.Name]
	if node == nil || commandLineOnly(flag) || slices.ContainsFunc(flag.Envs, isSet) {
		return nil, nil
	}
	value, err := flagValue(node, flag)
	if err == nil && value != nil {
		scratch := reflect.New(flag.Target.Type()).Elem()
		// flag.Parse would name the flag, and kong does that, too.
		err = flag.Mapper.Decode(&kong.DecodeContext{Value: flag.Value, Scan: kong.Scan().PushTyped(value, kong.FlagValueToken)}, scratch)
	}
	if err != nil {
		return nil, fmt.Errorf("%s:%d: %w", f.path, node.Line, err)
	}
	return value, nil
}

func isSet(env string) bool {
	_, ok := os.LookupEnv(env)
	return ok
}

// flagValue converts a YAML value to the input of the flag's own parser: text or a
// map.
func flagValue(node *yaml.Node, flag *kong.Flag) (any, error) {
	switch node.Kind {
	case yaml.ScalarNode:
		if node.Tag == "!!null" {
			return nil, nil
		}
		return node.Value, nil
	case yaml.SequenceNode:
		if flag.Target.Kind() != reflect.Slice {
			return nil, errors.New("is a list; give one value")
		}
		var parts []string
		if err := node.Decode(&parts); err != nil {
			return nil, fmt.Errorf("is not a list of plain values: %w", err)
		}
		return kong.JoinEscaped(parts, flag.Tag.Sep), nil
	case yaml.MappingNode:
		if !flag.IsMap() {
			return nil, errors.New("is a mapping; give one value")
		}
		var pairs map[string]any
		if err := node.Decode(&pairs); err != nil {
			return nil, fmt.Errorf("is not a mapping of plain values: %w", err)
		}
		return pairs, nil
	}
	return nil, errors.New("is a YAML alias; write the value itself")
}
