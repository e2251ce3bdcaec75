package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/bus"
	"github.com/morphogenetic/oona/bus/kafka"
	"github.com/morphogenetic/oona/internal/commits"
	"github.com/morphogenetic/oona/pipeline/aggregate"
)

type groupCommand struct {
	Bus    kafka.Config `embed:"" group:"Bus"`
	Prefix string       `group:"Bus" placeholder:"PREFIX" help:"Prefix of topic names."`
	Group  string       `group:"Bus" placeholder:"NAME" help:"Consumer group."`
	Topic  string       `group:"Bus" env:"-" placeholder:"TOPIC" help:"Topic that the group reads. Default: the topic of frames."`

	Show   showGroup   `cmd:"" help:"Print the members of the group, its commits and how far they are behind the log."`
	Export exportGroup `cmd:"" help:"Print the commits of the group, as a file for import. Keep one beside the backups of the topics, and make one before the group is renamed or deleted. The group may run."`
	Import importGroup `cmd:"" help:"Restore the commits of a file of export. It refuses a commit from which an aggregator could not continue. The group must have no members: stop the aggregators first. Windows that were emitted after the export are emitted again with the same content, and readers drop the repeats."`
	Remove removeGroup `cmd:"" help:"Remove a member with static membership (--group-instance), so that its partitions get another owner before its session times out. Use it after an aggregator was taken away for good, for example when a StatefulSet has shrunk. A worker that still runs joins again."`
}

func defaultGroup() groupCommand {
	return groupCommand{Prefix: oona.DefaultPrefix, Group: aggregate.DefaultGroup}
}

// open returns the bus and the names of topics. It sets the default of Topic.
func (c *groupCommand) open(logger *slog.Logger) (bus.Bus, oona.Topics, error) {
	topics, err := oona.NewTopics(c.Prefix)
	if err != nil {
		return nil, topics, err
	}
	c.Topic = cmp.Or(c.Topic, topics.SeedMetrics)
	return kafka.New(c.Bus, logger), topics, nil
}

// Validate is called by kong when flags, environment and file have been read.
func (c *groupCommand) Validate() error {
	if c.Group == "" {
		return &oona.FieldError{Field: "--group", Reason: "is empty; give the name of a consumer group"}
	}
	return nil
}

type exportGroup struct {
	To string `env:"-" placeholder:"FILE" help:"Write the commits to this file instead of the standard output. The file is replaced when all is written, so an interrupted export leaves the last one."`
}

// Run prints the commits, or writes them to a file.
func (e exportGroup) Run(ctx context.Context, c *grammar, to streams, logger *slog.Logger) error {
	b, _, err := c.Group.open(logger)
	if err != nil {
		return err
	}
	saved, err := commits.Save(ctx, b, c.Group.Group, c.Group.Topic)
	if err != nil {
		return err
	}
	if len(saved.Partitions) == 0 {
		return fmt.Errorf("group %s has no commit on %s; give the --group of the aggregators and their --prefix", c.Group.Group, c.Group.Topic)
	}
	if e.To == "" {
		return saved.Write(to.out)
	}
	if err := saved.Replace(e.To); err != nil {
		return err
	}
	fmt.Fprintf(to.out, "Commits of group %s on %s are in %s.\n", c.Group.Group, c.Group.Topic, e.To)
	return nil
}

type importGroup struct {
	File string `arg:"" placeholder:"FILE" help:"File of oona group export; - reads the standard input."`
	Yes  bool   `env:"-" help:"Do not ask for confirmation."`
}

var errNothingRestored = errors.New("nothing was restored")

// Run restores the commits.
func (i *importGroup) Run(ctx context.Context, c *grammar, to streams, logger *slog.Logger) error {
	file, err := i.read(to.in)
	if err != nil {
		return err
	}
	b, topics, err := c.Group.open(logger)
	if err != nil {
		return err
	}
	group := c.Group.Group
	members, err := b.Members(ctx, group)
	if err != nil {
		return err
	}
	if len(members) > 0 {
		return fmt.Errorf("%w; %w: it has %s. Stop the aggregators. A member that was stopped stays until its session times out, or until: oona group remove INSTANCE", errNothingRestored, bus.ErrHasMembers, names(members))
	}
	changes, err := file.Plan(ctx, b, topics, group, c.Group.Topic)
	if err != nil {
		return fmt.Errorf("%w: %w", errNothingRestored, err)
	}
	write, refused := report(to.messages, changes)
	if refused > 0 {
		return fmt.Errorf("%w: %d of the file's %d commits cannot be used", errNothingRestored, refused, len(changes))
	}
	if write == 0 {
		fmt.Fprintf(to.out, "Group %s has these commits already.\n", group)
		return nil
	}
	if i.File == "-" {
		to.in = nil // it was the file
	}
	if err := confirm(to, i.Yes, fmt.Sprintf("Write %d commits of group %s on %s?", write, group, c.Group.Topic)); err != nil {
		return err
	}
	if err := commits.Restore(ctx, b, group, c.Group.Topic, changes); err != nil {
		return err
	}
	fmt.Fprintf(to.out, "%d commits of group %s were restored.\n", write, group)
	return nil
}

func (i *importGroup) read(in io.Reader) (commits.File, error) {
	if i.File == "-" {
		return commits.Read(in)
	}
	f, err := os.Open(i.File)
	if err != nil {
		return commits.File{}, fmt.Errorf("read the commits: %w", err)
	}
	defer f.Close()
	return commits.Read(f)
}

// report prints what would change. It returns how many commits would be written, and how
// many are refused.
func report(w io.Writer, changes []commits.Change) (write, refused int) {
	for _, c := range changes {
		switch {
		case c.Refused != nil:
			refused++
			fmt.Fprintf(w, "partition %d: offset %d cannot be used: %v\n", c.Partition, c.Is.Offset, c.Refused)
		case !c.None():
			write++
			fmt.Fprintf(w, "partition %d: offset %d, was %s\n", c.Partition, c.Is.Offset, committed(c.Was))
		}
	}
	return write, refused
}

func committed(c bus.Commit) string {
	if c.Offset == bus.NoOffset {
		return "none"
	}
	return fmt.Sprint(c.Offset)
}

// names lists members by instance, or else by ID.
func names(members []bus.GroupMember) string {
	var all []string
	for _, m := range members {
		all = append(all, cmp.Or(m.Instance, m.ID))
	}
	return strings.Join(all, ", ")
}

type removeGroup struct {
	Instance string `arg:"" placeholder:"INSTANCE" help:"Group instance of the member (--group-instance of the worker)."`
}

// Run removes a member.
func (r *removeGroup) Run(ctx context.Context, c *grammar, to streams, logger *slog.Logger) error {
	b, _, err := c.Group.open(logger)
	if err != nil {
		return err
	}
	group := c.Group.Group
	err = b.RemoveMember(ctx, group, r.Instance)
	if errors.Is(err, bus.ErrNoMember) {
		if members, failed := b.Members(ctx, group); failed == nil {
			instances := slices.DeleteFunc(members, func(m bus.GroupMember) bool { return m.Instance == "" })
			return fmt.Errorf("%w; its members with static membership are: %s", err, cmp.Or(names(instances), "none"))
		}
	}
	if err != nil {
		return err
	}
	fmt.Fprintf(to.out, "%s is no member of group %s any more.\n", r.Instance, group)
	return nil
}

type showGroup struct {
	JSON bool `name:"json" help:"Print JSON."`
}

// shownGroup is what --json prints.
type shownGroup struct {
	Group      string           `json:"group"`
	Topic      string           `json:"topic"`
	Members    []shownMember    `json:"members"`
	Partitions []shownOwnership `json:"partitions"`
}

type shownMember struct {
	Instance   string  `json:"instance,omitempty"`
	ID         string  `json:"id"`
	Client     string  `json:"client"`
	Host       string  `json:"host"`
	Partitions []int32 `json:"partitions"`
}

// shownOwnership is a partition. Offset and Read are null without a commit. Read is how
// far the log had been read when it was committed: the commit of an aggregator is behind
// it on purpose.
type shownOwnership struct {
	Partition int32  `json:"partition"`
	Start     int64  `json:"start"`
	End       int64  `json:"end"`
	Offset    *int64 `json:"offset"`
	Read      *int64 `json:"read"`
	Owner     string `json:"owner,omitempty"`
	Fault     string `json:"fault,omitempty"` // why the commit cannot be read
}

// Run prints the group.
func (s *showGroup) Run(ctx context.Context, c *grammar, to streams, logger *slog.Logger) error {
	b, topics, err := c.Group.open(logger)
	if err != nil {
		return err
	}
	shown, err := c.Group.look(ctx, b, topics)
	if err != nil {
		return err
	}
	if s.JSON {
		return writeJSON(to.out, shown)
	}
	return shown.print(to.out)
}

// look asks the bus for the group. Commits are read before the extents, so that none is
// beyond the end of its log.
func (c *groupCommand) look(ctx context.Context, b bus.Bus, topics oona.Topics) (shownGroup, error) {
	shown := shownGroup{Group: c.Group, Topic: c.Topic, Members: []shownMember{}, Partitions: []shownOwnership{}}
	members, err := b.Members(ctx, c.Group)
	if err != nil {
		return shown, err
	}
	held, err := b.Commits(ctx, c.Group, c.Topic)
	if err != nil {
		return shown, err
	}
	extents, err := b.Extents(ctx, c.Topic)
	if err != nil {
		return shown, err
	}
	owners := make(map[int32]string)
	for _, m := range members {
		of := m.Partitions[c.Topic]
		shown.Members = append(shown.Members, shownMember{m.Instance, m.ID, m.Client, m.Host, append([]int32{}, of...)})
		for _, p := range of {
			owners[p] = cmp.Or(m.Instance, m.ID)
		}
	}
	for i, e := range extents[c.Topic] {
		p := shownOwnership{Partition: int32(i), Start: e.Start, End: e.End, Owner: owners[int32(i)]}
		if i < len(held) && held[i].Offset != bus.NoOffset {
			p.commit(held[i], c.Topic == topics.SeedMetrics)
		}
		shown.Partitions = append(shown.Partitions, p)
	}
	return shown, nil
}

// commit adds a commit. The one of an aggregator says how far the log was read.
func (p *shownOwnership) commit(c bus.Commit, aggregated bool) {
	p.Offset, p.Read = &c.Offset, &c.Offset
	if !aggregated {
		return
	}
	_, engine, err := aggregate.ParseCommit(c)
	if err == nil {
		reached, failed := engine.Reached()
		if err = failed; err == nil {
			p.Read = &reached.ProcessedTo
		}
	}
	if err != nil {
		p.Read, p.Fault = nil, err.Error()
	}
}

func (s shownGroup) print(w io.Writer) error {
	fmt.Fprintf(w, "group %s on %s\n", s.Group, s.Topic)
	if len(s.Members) == 0 {
		fmt.Fprintln(w, "no members")
	}
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, m := range s.Members {
		partitions := make([]string, len(m.Partitions))
		for i, p := range m.Partitions {
			partitions[i] = fmt.Sprint(p)
		}
		fmt.Fprintf(table, "member %s\tclient %s\tat %s\tpartitions %s\n", cmp.Or(m.Instance, m.ID), m.Client, m.Host, cmp.Or(strings.Join(partitions, ","), "none"))
	}
	if err := table.Flush(); err != nil {
		return err
	}
	fmt.Fprintln(table, "PARTITION\tCOMMIT\tREAD TO\tLOG\tBEHIND\tOWNER")
	for _, p := range s.Partitions {
		behind := "-"
		if p.Read != nil {
			behind = fmt.Sprint(max(0, p.End-*p.Read))
		}
		fmt.Fprintf(table, "%d\t%s\t%s\t%d to %d\t%s\t%s\n", p.Partition, offset(p.Offset), offset(p.Read), p.Start, p.End, behind, cmp.Or(p.Owner, "-"))
	}
	if err := table.Flush(); err != nil {
		return err
	}
	for _, p := range s.Partitions {
		if p.Fault != "" {
			fmt.Fprintf(w, "partition %d: %s\n", p.Partition, p.Fault)
		}
	}
	return nil
}

func offset(of *int64) string {
	if of == nil {
		return "-"
	}
	return fmt.Sprint(*of)
}
