package main

import (
	"os"
	"reflect"
	"time"

	"github.com/alecthomas/kong"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/windows"
)

// setting is a field of a windows.Config with the name of its flag. Durations are text.
type setting struct {
	name  string
	value any
}

// Names of settings that only configurations in the log have.
const (
	reducerSetting   = "reducer"
	catalogueSetting = "catalogue"
)

// allOf returns the settings of a configuration in the log.
func allOf(cfg windows.Config) []setting {
	return append(settingsOf(cfg), setting{reducerSetting, cfg.Reducer}, setting{catalogueSetting, catalogueName(cfg.Catalogue)})
}

// catalogueName returns the hash as text, or "none" if it is zero.
func catalogueName(hash oona.CatalogueHash) string {
	if hash == (oona.CatalogueHash{}) {
		return "none"
	}
	return hash.String()
}

// settingsOf returns the settings that aggregators have, too.
func settingsOf(cfg windows.Config) (all []setting) {
	v := reflect.ValueOf(cfg)
	for i := range v.NumField() {
		name := v.Type().Field(i).Tag.Get("name")
		if name == "" {
			continue
		}
		value := v.Field(i).Interface()
		if d, ok := value.(time.Duration); ok {
			value = d.String()
		}
		all = append(all, setting{name, value})
	}
	return all
}

func settingsByName(cfg windows.Config) map[string]any {
	values := make(map[string]any)
	for _, s := range allOf(cfg) {
		values[s.name] = s.value
	}
	return values
}

// given returns the names of the flags that the command line, a file or the environment
// sets.
func given(command *kong.Context) map[string]bool {
	names := make(map[string]bool)
	for _, p := range command.Path {
		if p.Flag != nil {
			names[p.Flag.Name] = true
		}
	}
	for _, flag := range command.Flags() {
		for _, variable := range flag.Envs {
			if _, set := os.LookupEnv(variable); set {
				names[flag.Name] = true
			}
		}
	}
	return names
}

// merge returns old with the named settings of changes.
func merge(old, changes windows.Config, names map[string]bool) windows.Config {
	to, from := reflect.ValueOf(&old).Elem(), reflect.ValueOf(changes)
	for i := range to.NumField() {
		if names[to.Type().Field(i).Tag.Get("name")] {
			to.Field(i).Set(from.Field(i))
		}
	}
	if names[reducerSetting] {
		old.Reducer = changes.Reducer
	}
	if names[catalogueSetting] {
		old.Catalogue = changes.Catalogue
	}
	return old
}
