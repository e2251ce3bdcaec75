// Command oona is the operator's tool: it runs the demo, creates and checks the
// topics, shows their records, and changes how windows are made.
//
//	oona demo            run broker, ingest, aggregate, exporter and a recorded run in one process
//	oona topics apply    create the missing topics, correct the configuration of the others
//	oona topics check    report what is wrong with the topics
//	oona watch           show the last windows of the layers
//	oona watch ADDRESS   follow an address of the bus, decoded
//	oona check           check the workers' configurations, by themselves and together
//	oona smoke           send frames through an installation, and wait for their rollup
//	oona windows show    print the configurations of the windows in the log
//	oona windows apply   write a configuration into the log
//	oona group show      print the members and the commits of a consumer group
//	oona group export    print the commits, for import
//	oona group import    restore the commits of a file
//	oona group remove    remove a member with static membership
//	oona keys token      make a token for a client of ingest or of an admin port
//	oona version         print the version
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/alecthomas/kong"

	"github.com/morphogenetic/oona/internal/demo"
	"github.com/morphogenetic/oona/internal/remedy"
	"github.com/morphogenetic/oona/internal/worker"
)

// grammar is the command line.
type grammar struct {
	Version worker.VersionFlag `env:"-" help:"Print the version and exit."`
	File    worker.ConfigFile  `name:"config" placeholder:"FILE" help:"YAML file whose keys are the names of these flags."`
	Log     worker.LogConfig   `embed:"" prefix:"log-" group:"Logs"`

	Demo   demoCommand   `cmd:"" help:"Run everything in one process and play a recorded training run through it."`
	Topics topicsCommand `cmd:"" help:"Create and check the topics."`

	Windows windowsCommand `cmd:"" help:"Show and change how windows are made."`

	Group groupCommand `cmd:"" help:"Show, save and restore the commits of a consumer group, and remove a member that has gone."`

	Keys keysCommand `cmd:"" help:"Make tokens for clients."`

	Check checkCommand `cmd:"" help:"Check that the configurations of the workers are valid, agree with each other and fit the topics, and print the effective ones. The exit status is 1 if something is wrong. OONA_... environment variables apply, as they do for a worker that is started here."`
	Smoke smokeCommand `cmd:"" help:"Send two frames to ingest, and wait until the exporter shows their rollup. The exit status is 1 if it does not come. The frames belong to a run of their own, oona-smoke-TIME."`
	Watch watchCommand `cmd:"" help:"Follow an address of the bus, decoded, or the last windows of the layers, until Ctrl-C."`

	PrintVersion versionCommand `cmd:"" name:"version" help:"Print the version."`
}

type versionCommand struct{}

// Run prints what --version prints.
func (versionCommand) Run(to streams) error {
	_, err := fmt.Fprintf(to.out, "oona %s\n", worker.ReadBuild())
	return err
}

// streams are the standard streams of a command.
type streams struct {
	in       io.Reader // answers to questions
	out      io.Writer // data
	messages io.Writer
}

// newGrammar returns the command line with its defaults.
func newGrammar() *grammar {
	g := &grammar{Demo: demoCommand{Config: demo.DefaultConfig()}, Topics: defaultTopics(), Windows: defaultWindows(), Group: defaultGroup(), Watch: defaultWatch(), Smoke: defaultSmoke()}
	g.Log.Level = "warn"
	return g
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal kills the process
	os.Exit(newGrammar().execute(ctx, os.Args[1:], streams{os.Stdin, os.Stdout, os.Stderr}))
}

// Exit statuses other than 0.
const (
	exitFailed = 1
	exitUsage  = 2
)

func (g *grammar) execute(ctx context.Context, args []string, to streams) int {
	exited := false
	parser, err := kong.New(g, append(worker.Options(),
		kong.Name("oona"),
		kong.Description("Oona, the telemetry bus of morphogenetic neural networks."),
		kong.Writers(to.out, to.messages),
		kong.Exit(func(int) { exited = true }),
		kong.BindTo(ctx, (*context.Context)(nil)),
	)...)
	if err != nil {
		fmt.Fprintf(to.messages, "oona: define the commands: %v\n", err)
		return exitFailed
	}
	command, err := parser.Parse(worker.Arguments(args))
	if exited { // help was printed
		return 0
	}
	for _, warning := range worker.MistakenVariables(os.Environ()) {
		fmt.Fprintf(to.messages, "oona: warning: %s\n", warning)
	}
	if err != nil {
		fmt.Fprintf(to.messages, "oona: %v\nRun %s --help for help.\n", withCommands(err), commandOf(err))
		return exitUsage
	}
	if err := remedy.Add(command.Run(worker.NewLogger(g.Log, to.messages), to)); err != nil {
		fmt.Fprintf(to.messages, "oona: %v\n", err)
		return exitFailed
	}
	return 0
}

// withCommands returns the error with all commands if one is missing. Kong names only the
// first five.
func withCommands(err error) error {
	wrong, ok := errors.AsType[*kong.ParseError](err)
	if !ok || wrong.Context.Selected() != nil || !strings.HasPrefix(err.Error(), "expected one of ") {
		return err
	}
	var commands []string
	for _, command := range wrong.Context.Model.Children {
		commands = append(commands, command.Name)
	}
	return fmt.Errorf("give a command: %s", strings.Join(commands, ", "))
}

// commandOf returns the command that a parse error is about.
func commandOf(err error) string {
	if wrong, ok := errors.AsType[*kong.ParseError](err); ok && wrong.Context.Selected() != nil {
		return wrong.Context.Selected().FullPath()
	}
	return "oona"
}
