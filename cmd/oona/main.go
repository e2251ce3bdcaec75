// Command oona is the operator's tool: it runs the demo, creates and checks the
// topics, shows their records, and changes how windows are made.
//
//	oona demo            run broker, ingest, aggregate, exporter and a recorded run in one process
//	oona topics apply    create the missing topics, correct the configuration of the others
//	oona topics check    report what is wrong with the topics
//	oona watch           show the last windows of the layers
//	oona watch ADDRESS   follow an address of the bus, decoded
//	oona audit           print the lives of seeds from their events, and what is wrong with them
//	oona status RUN      print what became of a run's frames recently
//	oona replay          archive ranges of topics, and compute rollups again
//	oona replay verify   compare an archive with its manifest and with the log
//	oona tensors         list, fetch, verify and remove tensors of the store
//	oona spool           show and send what is left in the spool of an ingest
//	oona dead-letters    list, show, redrive and discard the records of side topics
//	oona top             show layers, partitions, side topics and ingests, live
//	oona check           check the workers' configurations, by themselves and together
//	oona smoke           send frames through an installation, and wait for their rollup
//	oona windows show    print the configurations of the windows in the log
//	oona windows apply   write a configuration into the log
//	oona group show      print the members and the commits of a consumer group
//	oona group export    print the commits, for import
//	oona group import    restore the commits of a file
//	oona group remove    remove a member with static membership
//	oona keys token      make a token for a client of ingest or of an admin port
//	oona registry check     compare the subjects of a schema registry with Oona's schemas
//	oona registry register  register Oona's schemas
//	oona registry mirror    copy topics with the registry's framing
//	oona version         print the version
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/alecthomas/kong"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/bus/kafka"
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

	Registry registryCommand `cmd:"" help:"Register Oona's schemas in a schema registry, and copy topics for programs that need its encoding."`

	Check checkCommand `cmd:"" help:"Check that the configurations of the workers are valid, agree with each other and fit the topics, and print the effective ones. The exit status is 1 if something is wrong. OONA_... environment variables apply, as they do for a worker that is started here."`
	Smoke smokeCommand `cmd:"" help:"Send two frames to ingest, and wait until the exporter shows their rollup. The exit status is 1 if the rollup does not appear. The frames belong to a new run, oona-smoke-TIME."`
	Watch watchCommand `cmd:"" help:"Follow an address of the bus and print the decoded records, or show the last windows of the layers, until Ctrl-C."`

	Audit auditCommand `cmd:"" help:"Print the life of each seed from its events, over all topics of events, in the order of their sequence numbers, and flag what is wrong: missing sequence numbers, two events with one identity, transitions that the lifecycle does not have, events in the wrong place, runs whose events have two writers. The exit status is 0 if nothing is flagged, 1 if something is, 3 if a topic of events is missing or may not be read, 4 if there are no events for --run, --layer and --seed, and 5 if the audit fails."`

	Status statusCommand `cmd:"" help:"Ask the exporter what recently happened to the frames of a run. It shows the last windows of the layers, the records that were put aside, and what to do about those. The exit status is 1 if the exporter does not know the run."`

	Tensors     tensorsCommand     `cmd:"" help:"List, fetch and verify the tensors of the store, and remove those that no record refers to."`
	Replay      replayCommand      `cmd:"" help:"Read ranges of topics again, for archives and for recomputed rollups."`
	DeadLetters deadLettersCommand `cmd:"" name:"dead-letters" help:"List records that were not folded, and show, redrive or discard them."`
	Spool       spoolCommand       `cmd:"" help:"Show the content of the spool of an ingest, and send it if the ingest will not run again."`

	Top topCommand `cmd:"" help:"Show the state of an installation as it changes: layers with their verdicts, partitions and how far the aggregators lag behind, side topics, and ingests. All of it comes from the bus. In a pipe, each update is printed as lines, and --once prints it once."`

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

// writeJSON writes a value in a form that people can read, too.
func writeJSON(w io.Writer, v any) error {
	encoder := json.NewEncoder(w)
	encoder.SetIndent("", "  ")
	return encoder.Encode(v)
}

// newGrammar returns the command line with its defaults.
func newGrammar() *grammar {
	g := &grammar{Demo: demoCommand{Config: demo.DefaultConfig()}, Topics: defaultTopics(), Windows: defaultWindows(), Group: defaultGroup(), Watch: defaultWatch(), Audit: defaultAudit(), Smoke: defaultSmoke(), Replay: defaultReplay(), Tensors: defaultTensors(), DeadLetters: defaultDeadLetters(), Spool: defaultSpool(), Registry: defaultRegistry(), Top: defaultTop()}
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
	exitFailed      = 1
	exitUsage       = 2
	exitIncomplete  = 3   // of oona replay and oona audit: see errIncomplete and errUnread
	exitNothing     = 4   // of oona replay and oona audit: see errNothing
	exitNotAudited  = 5   // of oona audit: see errNotAudited
	exitInterrupted = 130 // as a shell says it of SIGINT
)

// exitStatus returns the exit status for an error of a command.
func exitStatus(ctx context.Context, err error) int {
	switch {
	case ctx.Err() != nil:
		return exitInterrupted
	case errors.Is(err, errIncomplete), errors.Is(err, errUnread):
		return exitIncomplete
	case errors.Is(err, errNothing):
		return exitNothing
	case errors.Is(err, errNotAudited):
		return exitNotAudited
	}
	return exitFailed
}

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
	if exited || worker.IsUnread(to.out, err) { // help was printed, or as much of it as was read
		return 0
	}
	for _, warning := range worker.MistakenVariables(os.Environ()) {
		fmt.Fprintf(to.messages, "oona: warning: %s\n", warning)
	}
	if err != nil {
		fmt.Fprintf(to.messages, "oona: %v\nRun %s --help for help.\n", withCommands(err), commandOf(err))
		return exitUsage
	}
	for _, warning := range g.warnings(command) {
		fmt.Fprintf(to.messages, "oona: warning: %v\n", warning)
	}
	if err := remedy.Add(command.Run(worker.NewLogger(g.Log, to.messages), to)); err != nil {
		if worker.IsUnread(to.out, err) {
			return worker.ExitUnread
		}
		fmt.Fprintf(to.messages, "oona: %v\n", err)
		return exitStatus(ctx, err)
	}
	return 0
}

// warnings returns what is probably not meant in the settings of a command's connections.
func (g *grammar) warnings(command *kong.Context) []*oona.FieldError {
	name, _, _ := strings.Cut(command.Command(), " ")
	switch name {
	case "smoke":
		return g.Smoke.warnings()
	case "status":
		return g.Status.warnings()
	case "top":
		return g.Top.warnings()
	case "dead-letters":
		return append(g.DeadLetters.Redrive.Registry.Warnings(), g.DeadLetters.Bus.Security.Warnings()...)
	case "registry":
		return append(g.Registry.Registry.Warnings(), g.Registry.Mirror.Bus.Security.Warnings()...)
	}
	return map[string]kafka.Security{
		"demo":    g.Demo.Security,
		"topics":  g.Topics.Bus.Security,
		"windows": g.Windows.Bus.Security,
		"group":   g.Group.Bus.Security,
		"watch":   g.Watch.Bus.Security,
		"replay":  g.Replay.Bus.Security,
		"tensors": g.Tensors.Bus.Security,
		"spool":   g.Spool.Drain.Bus.Security,
		"audit":   g.Audit.Bus.Security,
	}[name].Warnings()
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
		command := wrong.Context.Selected()
		if command.DefaultCmd != nil {
			command = command.DefaultCmd // its flags can be given without its name
		}
		return command.FullPath()
	}
	return "oona"
}
