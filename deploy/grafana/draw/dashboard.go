package draw

import (
	"encoding/json"
	"fmt"
	"maps"
	"regexp"
	"strings"
)

// Dashboard is what a file of Grafana's schema v1 says.
type Dashboard struct {
	UID        string
	Title      string
	Panels     []Panel
	Templating struct{ List []Variable }
}

// Variable is a variable of a dashboard.
type Variable struct {
	Name, Type, Query, Regex, AllValue string
	IncludeAll, Multi                  bool
	Current                            struct{ Value any }
	Options                            []struct{ Text, Value string }
}

// Panel is a panel, or the title of a row.
type Panel struct {
	Type, Title, Description string
	GridPos                  struct{ X, Y, W, H int }
	Targets                  []Target
	Options                  struct {
		SortBy []struct {
			DisplayName string
			Desc        bool
		}
		ColorMode string
		GraphMode string
		Legend    struct{ ShowLegend bool }
	}
	FieldConfig struct {
		Defaults  Field
		Overrides []override
	}
	Transformations []struct {
		ID      string
		Options struct {
			RenameByName  map[string]string
			IndexByName   map[string]int
			ExcludeByName map[string]bool
		}
	}
}

// Target is a query of a panel.
type Target struct {
	RefID, Expr, LegendFormat, Format string
	Instant, Exemplar                 bool
}

// Field says how values are shown.
type Field struct {
	Unit     string
	Min, Max *float64
	NoValue  string
	Mappings []struct {
		Options map[string]struct {
			Text, Color string
			Index       int
		}
	}
	Thresholds struct {
		Steps []struct {
			Value *float64
			Color string
		}
	}
	Color  struct{ Mode, FixedColor string }
	Custom map[string]any
}

type override struct {
	Matcher    struct{ ID, Options string }
	Properties []struct {
		ID    string
		Value json.RawMessage
	}
}

// Read reads a dashboard.
func Read(text []byte) (*Dashboard, error) {
	var d Dashboard
	if err := json.Unmarshal(text, &d); err != nil {
		return nil, fmt.Errorf("read a dashboard: %w", err)
	}
	return &d, nil
}

// Field returns how a series or column of this name is shown.
func (p *Panel) Field(name string) (Field, error) {
	f := p.FieldConfig.Defaults
	f.Custom = maps.Clone(f.Custom)
	if f.Custom == nil {
		f.Custom = make(map[string]any)
	}
	for _, o := range p.FieldConfig.Overrides {
		if o.Matcher.ID != "byName" {
			return f, fmt.Errorf("panel %q: an override is %s, which draw does not know", p.Title, o.Matcher.ID)
		}
		if o.Matcher.Options != name {
			continue
		}
		for _, property := range o.Properties {
			if err := f.set(property.ID, property.Value); err != nil {
				return f, fmt.Errorf("panel %q, %s of %s: %w", p.Title, property.ID, name, err)
			}
		}
	}
	return f, nil
}

func (f *Field) set(id string, value json.RawMessage) error {
	if id, custom := strings.CutPrefix(id, "custom."); custom {
		var v any
		err := json.Unmarshal(value, &v)
		f.Custom[id] = v
		return err
	}
	switch id {
	case "unit":
		return json.Unmarshal(value, &f.Unit)
	case "color":
		return json.Unmarshal(value, &f.Color)
	case "mappings":
		f.Mappings = nil
		return json.Unmarshal(value, &f.Mappings)
	case "thresholds":
		f.Thresholds.Steps = nil
		return json.Unmarshal(value, &f.Thresholds)
	case "links":
		return nil
	}
	return fmt.Errorf("draw does not know this property")
}

// number returns a custom setting.
func (f *Field) number(id string, otherwise float64) float64 {
	if v, ok := f.Custom[id].(float64); ok {
		return v
	}
	return otherwise
}

func (f *Field) word(id string) string {
	v, _ := f.Custom[id].(string)
	return v
}

// level returns the colour that the thresholds give a value.
func (f *Field) level(v float64) string {
	colour := ""
	for _, s := range f.Thresholds.Steps {
		if s.Value == nil || v >= *s.Value {
			colour = s.Color
		}
	}
	return colour
}

// Show returns a value as text, and its colour by the mappings or the thresholds.
func (f *Field) Show(v float64, at float64) (text, colour string) {
	for _, m := range f.Mappings {
		if word, ok := m.Options[fmt.Sprint(v)]; ok {
			return word.Text, word.Color
		}
	}
	return unit(v, f.Unit, at), f.level(v)
}

var reference = regexp.MustCompile(`\$(?:\{(\w+)(?::(\w+))?\}|(\w+))`)

// Values are the values of variables. One with several values is a regular expression.
type Values map[string]string

// Substitute puts the values of variables into a text.
func (v Values) Substitute(text string) string {
	return reference.ReplaceAllStringFunc(text, func(found string) string {
		m := reference.FindStringSubmatch(found)
		name := m[1] + m[3]
		if value, ok := v[name]; ok {
			return value
		}
		return found
	})
}
