package worker

import (
	"encoding"
	"fmt"
	"io"
	"reflect"
	"strings"
	"time"

	"github.com/alecthomas/kong"

	"github.com/morphogenetic/oona"
)

// Config is what every worker is configured with beside its stage. A worker's
// own configuration embeds it.
type Config struct {
	Version      VersionFlag   `env:"-" help:"Print the version and exit."`
	File         ConfigFile    `name:"config" placeholder:"FILE" help:"YAML file whose keys are the names of these flags. Flags and environment variables override it."`
	Check        CheckFlag     `env:"-" help:"Validate the configuration, print the effective one as YAML and exit. It can run on another machine: it resolves no host names, opens no port and does not connect to the bus (oona check does). Files and directories that the configuration names must exist."`
	DrainTimeout time.Duration `default:"20s" help:"Maximum time from SIGINT, SIGTERM or SIGHUP to the end of the process, in which work in progress must finish and connections close. Whatever has not finished is logged, and the exit status is 1."`

	AdminAddress string `group:"Admin" placeholder:"ADDRESS" help:"Address on which to serve /livez, /readyz, /metrics and /debug/pprof; port 0 picks a free port."`

	Log LogConfig `embed:"" prefix:"log-" group:"Logs"`
}

// Validate reports the first setting that cannot be.
func (c Config) Validate() error {
	if c.DrainTimeout <= 0 {
		return &oona.FieldError{Field: "--drain-timeout", Reason: fmt.Sprintf("is %s; give a time above 0", c.DrainTimeout)}
	}
	return CheckAddresses(Listener{"--admin-address", c.AdminAddress})
}

func (c *Config) common() *Config { return c }

// Configuration is a pointer to a struct that embeds [Config]. The values that
// it holds before it is parsed are the defaults of its flags.
type Configuration interface{ common() *Config }

// CheckFlag asks for the effective configuration instead of a run.
type CheckFlag bool

// Parse fills cfg from args, the environment and a configuration file, and
// validates it. Where only text was asked for (-h, --version, --check), it is
// written to stdout and done is true.
func Parse(cfg Configuration, name, description string, args []string, stdout io.Writer, options ...kong.Option) (done bool, err error) {
	printed := false
	all := append(Options(), kong.Name(name), kong.Description(description), kong.Writers(stdout, stdout),
		kong.Exit(func(int) { printed = true })) // after help or version; kong then parses on
	parser, err := kong.New(cfg, append(all, options...)...)
	if err != nil {
		return false, fmt.Errorf("define the flags of %s: %w", name, err)
	}
	if _, err = parser.Parse(args); printed {
		return true, nil
	}
	if err != nil {
		return false, err
	}
	if cfg.common().Check {
		return true, WriteEffective(stdout, parser.Model.Node)
	}
	return false, nil
}

// Options make a kong parser that reads OONA_... variables, takes the values
// that the grammar holds as defaults, and prints help that names both. Defaults
// may also be interpolated ("${name}") from a kong.Vars option. An enum needs its
// default in the tag: kong asks for it before it looks at values.
func Options() []kong.Option {
	return []kong.Option{
		kong.DefaultEnvars("OONA"),
		kong.PostBuild(withoutServiceLinks),
		kong.KindMapper(reflect.Slice, trimmedLists()),
		kong.PostBuild(defaultsFromValues),
		kong.PostBuild(readableHelp),
		kong.ValueFormatter(describe),
		kong.ConfigureHelp(kong.HelpOptions{WrapUpperBound: 110, FlagsLast: true}),
	}
}

// trimmedLists reads lists without the spaces around their entries, as in
// "a:9092, b:9092".
func trimmedLists() kong.Mapper {
	untrimmed := kong.NewRegistry().RegisterDefaults()
	return kong.MapperFunc(func(ctx *kong.DecodeContext, target reflect.Value) error {
		if text, ok := ctx.Scan.Peek().Value.(string); ok {
			entries := kong.SplitEscaped(text, ctx.Value.Tag.Sep)
			for i := range entries {
				entries[i] = strings.TrimSpace(entries[i])
			}
			token := ctx.Scan.Pop()
			ctx.Scan.PushTyped(kong.JoinEscaped(entries, ctx.Value.Tag.Sep), token.Type)
		}
		return untrimmed.ForValue(target).Decode(ctx, target)
	})
}

// everyFlag calls do for each flag of the program, hidden ones included.
func everyFlag(node *kong.Node, do func(*kong.Flag)) {
	for _, flag := range node.Flags {
		do(flag)
	}
	for _, child := range node.Children {
		everyFlag(child, do)
	}
}

// defaultsFromValues makes the value that a flag's field holds its default, so
// that defaults which live in code are written once.
func defaultsFromValues(k *kong.Kong) error {
	everyFlag(k.Model.Node, func(flag *kong.Flag) {
		if flag.Target.IsValid() && !flag.Target.IsZero() {
			flag.Default = strings.ReplaceAll(formatValue(flag.Value), "$", "$$")
			flag.HasDefault = true
		}
	})
	return nil
}

// formatValue writes a flag's value as the command line takes it.
func formatValue(value *kong.Value) string {
	if value.Target.Kind() == reflect.Slice && value.Tag.Sep != -1 {
		parts := make([]string, value.Target.Len())
		for i := range parts {
			parts[i] = formatScalar(value.Target.Index(i))
		}
		return kong.JoinEscaped(parts, value.Tag.Sep)
	}
	return formatScalar(value.Target)
}

func formatScalar(v reflect.Value) string {
	if m, ok := v.Interface().(encoding.TextMarshaler); ok {
		if text, err := m.MarshalText(); err == nil {
			return string(text)
		}
	}
	return fmt.Sprint(v.Interface()) // a Duration has its String
}

// readableHelp names the kind of each flag's value, as the default stands in
// the text, and ends the titles of groups like that of the first.
func readableHelp(k *kong.Kong) error {
	everyFlag(k.Model.Node, func(flag *kong.Flag) {
		if flag.Group != nil && !strings.HasSuffix(flag.Group.Title, ":") {
			flag.Group.Title += ":"
		}
		if flag.PlaceHolder != "" || flag.IsBool() {
			return
		}
		if _, ok := flag.Target.Interface().(time.Duration); ok {
			flag.PlaceHolder = "TIME"
			return
		}
		switch kind := flag.Target.Kind(); {
		case kind >= reflect.Int && kind <= reflect.Float64:
			flag.PlaceHolder = "N"
		case kind == reflect.String && flag.Tag.Enum != "":
			flag.PlaceHolder = strings.ReplaceAll(flag.Tag.Enum, ",", "|")
		case kind == reflect.Slice:
			flag.PlaceHolder = "TEXT"
		case kind == reflect.String:
			flag.PlaceHolder = "TEXT"
		}
	})
	return nil
}

// describe is a flag's help, its default and its environment variable.
func describe(value *kong.Value) string {
	var notes []string
	if value.HasDefault && value.Default != "" && !value.IsBool() {
		notes = append(notes, "default "+value.Default)
	}
	for _, env := range value.Tag.Envs {
		notes = append(notes, "$"+env)
	}
	if len(notes) == 0 {
		return value.Help
	}
	return value.Help + " (" + strings.Join(notes, ", ") + ")"
}
