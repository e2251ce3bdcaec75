package worker

import (
	"bytes"
	"encoding"
	"fmt"
	"io"
	"reflect"
	"strings"
	"time"

	"github.com/alecthomas/kong"
	"github.com/alecthomas/units"
	"gopkg.in/yaml.v3"

	"github.com/morphogenetic/oona/internal/size"
)

// WriteEffective writes the flags of a parsed program as a YAML file for --config.
func WriteEffective(w io.Writer, program *kong.Node) error {
	root := &yaml.Node{Kind: yaml.MappingNode}
	group := ""
	var failed error
	everyFlag(program, func(flag *kong.Flag) {
		if commandLineOnly(flag) || failed != nil {
			return
		}
		key := &yaml.Node{Kind: yaml.ScalarNode, Value: flag.Name}
		if flag.Group != nil && flag.Group.Title != group {
			group = flag.Group.Title
			key.HeadComment = group
		}
		value := new(yaml.Node)
		if err := value.Encode(plain(flag.Target)); err != nil {
			failed = fmt.Errorf("write --%s: %w", flag.Name, err)
			return
		}
		root.Content = append(root.Content, key, value)
	})
	if failed != nil {
		return failed
	}
	var text bytes.Buffer // the encoder's errors would not wrap those of w
	encoder := yaml.NewEncoder(&text)
	encoder.SetIndent(2)
	if err := encoder.Encode(root); err != nil {
		return fmt.Errorf("write the effective configuration: %w", err)
	}
	if err := encoder.Close(); err != nil {
		return fmt.Errorf("write the effective configuration: %w", err)
	}
	_, err := w.Write(text.Bytes())
	return err
}

// plain returns a value in the form that a file has it: durations, and values that
// implement encoding.TextMarshaler, as text.
func plain(v reflect.Value) any {
	switch value := v.Interface().(type) {
	case time.Duration:
		return value.String()
	case units.Base2Bytes:
		if text := size.Text(value); strings.Trim(text, "-0123456789") != "" {
			return text
		}
		return int64(value) // without quotes
	case encoding.TextMarshaler:
		return formatScalar(v)
	}
	if v.Kind() == reflect.Slice {
		list := make([]any, v.Len())
		for i := range list {
			list[i] = plain(v.Index(i))
		}
		return list
	}
	return v.Interface()
}
