package worker

import (
	"crypto/tls"
	"encoding"
	"fmt"
	"io"
	"reflect"
	"regexp"
	"strings"
	"time"

	"github.com/alecthomas/kong"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/internal/access"
	"github.com/morphogenetic/oona/internal/address"
	"github.com/morphogenetic/oona/internal/secret"
	"github.com/morphogenetic/oona/internal/size"
	"github.com/morphogenetic/oona/internal/tlsfiles"
	"github.com/morphogenetic/oona/internal/tracing"
)

// Config is the part of the configuration that all workers have. A worker's own
// configuration embeds it.
type Config struct {
	Version      VersionFlag   `env:"-" help:"Print the version and exit."`
	File         ConfigFile    `name:"config" placeholder:"FILE" help:"YAML file whose keys are the names of these flags. Flags and environment variables override it."`
	Check        CheckFlag     `env:"-" help:"Validate the configuration, print the effective one as YAML and exit. It can run on another machine: it resolves no host names, opens no port and does not connect to the bus (oona check does). Files and directories that the configuration names must exist."`
	CheckReady   ReadyFlag     `env:"-" help:"Ask the running worker with these settings whether it is ready, at its --admin-address. Print its answer and exit with 0 or 1. This is for container runtimes whose health checks are commands."`
	DrainTimeout time.Duration `default:"20s" help:"Maximum time from SIGINT, SIGTERM or SIGHUP to the end of the process, in which work in progress must finish and connections close. Whatever has not finished is logged, and the exit status is 1."`

	AdminAddress string               `group:"Admin" placeholder:"ADDRESS" help:"Address on which to serve /livez, /readyz and /metrics; port 0 picks a free port."`
	AdminTLS     tlsfiles.ServerFlags `embed:"" prefix:"admin-" group:"Admin"`
	AdminAccess  string               `name:"admin-access-file" group:"Admin" placeholder:"FILE" help:"YAML file of the identities that may read /metrics and / (role metrics) and /debug/pprof (role profile), with their tokens or certificates. Changes are read without a restart. /livez and /readyz need no credentials. Default: everyone, or with --admin-client-ca-file each client with a certificate."`
	AdminPprof   bool                 `group:"Admin" help:"Also serve profiles of the process at /debug/pprof. They show its command line and parts of its memory."`

	Log LogConfig `embed:"" prefix:"log-" group:"Logs"`

	Trace tracing.Flags `embed:"" prefix:"trace-" group:"Traces"`

	Prefix string `group:"Bus" default:"kasmina" placeholder:"PREFIX" help:"Prefix of topic names. All series of the worker have it as the label prefix."`
}

// Validate returns an *oona.FieldError for the first setting that is wrong.
func (c Config) Validate() error {
	if c.DrainTimeout <= 0 {
		return &oona.FieldError{Field: "--drain-timeout", Reason: fmt.Sprintf("is %s; give a time above 0", c.DrainTimeout)}
	}
	if _, err := oona.NewTopics(c.Prefix); err != nil {
		return AsFlag("--prefix", err)
	}
	if err := CheckAddresses(Listener{"--admin-address", c.AdminAddress}); err != nil {
		return err
	}
	if _, err := c.openAdminTLS(nil); err != nil {
		return err
	}
	if _, err := c.openAdminAccess(nil); err != nil {
		return err
	}
	return c.Trace.Validate()
}

// openAdminAccess returns who may read what on the admin port, or nil if everyone may
// read everything.
func (c Config) openAdminAccess(files *secret.Files) (*access.Gate, error) {
	switch {
	case c.AdminAccess != "":
		return access.Open(files, "--admin-access-file", c.AdminAccess)
	case c.AdminTLS.ClientCAFile != "":
		return access.AnyCertificate(), nil
	}
	return nil, nil
}

// openAdminTLS returns the TLS configuration of the admin server, or nil if it has none.
// A client need not show a certificate for /livez and /readyz, as a kubelet has none.
func (c Config) openAdminTLS(files *secret.Files) (*tls.Config, error) {
	return tlsfiles.OpenServer(files, "admin-", c.AdminTLS, tls.VerifyClientCertIfGiven)
}

func (c *Config) common() *Config { return c }

// Warnings describes settings that are allowed but probably a mistake. A worker logs them at its start,
// and --check prints it. A worker's own configuration adds its own.
func (c Config) Warnings() []*oona.FieldError {
	warnings := c.AdminTLS.Warnings("admin-")
	if c.AdminAccess != "" && c.AdminTLS.CertFile == "" {
		warnings = append(warnings, ClearText("--admin-access-file"))
	}
	if c.AdminPprof && c.AdminAccess == "" && c.AdminTLS.ClientCAFile == "" && !address.OnlyHere(c.AdminAddress) {
		warnings = append(warnings, &oona.FieldError{Field: "--admin-pprof", Reason: fmt.Sprintf("lets everyone who can reach the admin address, %s, read profiles; set --admin-access-file, or let --admin-address be a loopback address", c.AdminAddress)})
	}
	return append(warnings, c.Trace.Warnings()...)
}

// ClearText returns the warning that the tokens of an access file are sent without
// encryption. setting names the file.
func ClearText(setting string) *oona.FieldError {
	return &oona.FieldError{Field: setting, Reason: "has tokens that clients send in clear text, as the address has no TLS; give it a certificate, unless something in front of it has one"}
}

// Configuration is a pointer to a struct that embeds [Config]. The values of its
// fields before Parse are the defaults of the flags.
type Configuration interface {
	common() *Config
	Warnings() []*oona.FieldError
}

// CheckFlag is a flag that prints the effective configuration and exits.
type CheckFlag bool

// Parse fills cfg from args, the environment and a configuration file, and validates
// it. For -h, --version and --check, it writes the text to stdout and returns done.
func Parse(cfg Configuration, name, description string, args []string, stdout io.Writer, options ...kong.Option) (done bool, err error) {
	printed := false
	all := append(Options(), kong.Name(name), kong.Description(description), kong.Writers(stdout, stdout),
		kong.Exit(func(int) { printed = true })) // after help or version; kong continues to parse
	parser, err := kong.New(cfg, append(all, options...)...)
	if err != nil {
		return false, fmt.Errorf("define the flags of %s: %w", name, err)
	}
	if _, err = parser.Parse(Arguments(args)); printed {
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

// Options returns options for a kong parser that reads OONA_... variables, uses the
// values of the fields as defaults, and prints help that names both. Defaults may be
// interpolated ("${name}") from a kong.Vars option. An enum needs its default in the
// tag, as kong checks the tag before it looks at values.
func Options() []kong.Option {
	return append(values(),
		kong.DefaultEnvars("OONA"),
		kong.PostBuild(withoutServiceLinks),
		kong.KindMapper(reflect.Slice, trimmedLists()),
		kong.PostBuild(defaultsFromValues),
		kong.PostBuild(readableHelp),
		kong.ValueFormatter(describe),
		kong.ConfigureHelp(kong.HelpOptions{WrapUpperBound: 110, FlagsLast: true}),
	)
}

// negative matches values, which no flag looks like.
var negative = regexp.MustCompile(`^-[0-9.]`)

// Arguments returns args with "--flag -1" as "--flag=-1". Kong takes -1 for another flag.
func Arguments(args []string) (joined []string) {
	for i, arg := range args {
		if last := len(joined) - 1; i > 0 && negative.MatchString(arg) && strings.HasPrefix(args[i-1], "--") && !strings.Contains(args[i-1], "=") && args[i-1] != "--" {
			joined[last] += "=" + arg
			continue
		}
		joined = append(joined, arg)
	}
	return joined
}

// trimmedLists returns a mapper for lists that removes the spaces around entries, for
// example in "a:9092, b:9092".
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

// everyFlag calls do for each flag of the program, including hidden ones.
func everyFlag(node *kong.Node, do func(*kong.Flag)) {
	for _, flag := range node.Flags {
		do(flag)
	}
	for _, child := range node.Children {
		everyFlag(child, do)
	}
}

// defaultsFromValues makes the value of each flag's field its default, so that
// defaults that are constants in the code need not be repeated in tags.
func defaultsFromValues(k *kong.Kong) error {
	everyFlag(k.Model.Node, func(flag *kong.Flag) {
		if flag.Target.IsValid() && !flag.Target.IsZero() {
			flag.Default = strings.ReplaceAll(formatValue(flag.Value), "$", "$$")
			flag.HasDefault = true
		}
	})
	return nil
}

// formatValue returns a flag's value in the form of the command line.
func formatValue(value *kong.Value) string {
	_, marshals := value.Target.Interface().(encoding.TextMarshaler)
	if value.Target.Kind() == reflect.Slice && value.Tag.Sep != -1 && !marshals {
		parts := make([]string, value.Target.Len())
		for i := range parts {
			parts[i] = formatScalar(value.Target.Index(i))
		}
		return kong.JoinEscaped(parts, value.Tag.Sep)
	}
	if isSize(value) {
		return size.Text(value.Target.Int())
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

// readableHelp sets the placeholder of each flag to the kind of its value, as the
// help text has the default. It ends the titles of groups with a colon.
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
		if isSize(flag.Value) {
			flag.PlaceHolder = "SIZE"
			return
		}
		switch kind := flag.Target.Kind(); {
		case kind >= reflect.Int && kind <= reflect.Float64:
			flag.PlaceHolder = "N"
		case kind == reflect.String && flag.Tag.Enum != "":
			flag.PlaceHolder = strings.ReplaceAll(flag.Tag.Enum, ",", "|")
		case kind == reflect.Slice, kind == reflect.String:
			flag.PlaceHolder = "TEXT"
		}
	})
	return nil
}

// longList is the length from which the default of a list is broken into lines.
const longList = 72

// describe returns a flag's help with its default and its environment variable.
func describe(value *kong.Value) string {
	var notes []string
	if value.HasDefault && value.Default != "" && !value.IsBool() {
		text := value.Default
		if value.IsSlice() && len(text) > longList {
			text = strings.ReplaceAll(text, ",", ", ") // help breaks lines at spaces
		}
		notes = append(notes, "default "+text)
	}
	for _, env := range value.Tag.Envs {
		notes = append(notes, "$"+env)
	}
	if len(notes) == 0 {
		return value.Help
	}
	return value.Help + " (" + strings.Join(notes, ", ") + ")"
}
