package main

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/morphogenetic/oona/bus"
	"github.com/morphogenetic/oona/bus/kafka"
	"github.com/morphogenetic/oona/internal/commits"
	"github.com/morphogenetic/oona/windows"
)

// group runs oona group on the installation, without a transcript, as offsets differ
// from run to run.
func (i *installation) groupCommand(args ...string) (status int, out, messages string) {
	i.t.Helper()
	return run(i.t, append([]string{"group"}, append(args, "--brokers", strings.Join(i.cfg.Brokers, ","), "--prefix", i.group)...)...)
}

// exported returns the file of oona group export, and its path.
func (i *installation) exported(group string) (commits.File, string) {
	i.t.Helper()
	status, out, messages := i.groupCommand("export", "--group", group)
	if status != 0 {
		i.t.Fatalf("export: status %d, %q", status, messages)
	}
	file, err := commits.Read(strings.NewReader(out))
	if err != nil {
		i.t.Fatal(err)
	}
	path := filepath.Join(i.t.TempDir(), "commits.json")
	if status, _, messages := i.groupCommand("export", "--group", group, "--to", path); status != 0 {
		i.t.Fatalf("export to a file: status %d, %q", status, messages)
	}
	return file, path
}

// The rehearsal of docs/deploy.md: the group has lost its commits, and the log no longer
// holds its beginning. Aggregators refuse until the commits are restored, here to a group
// with another name.
func TestGroupIsRestored(t *testing.T) {
	onInstallations(t, func(t *testing.T, i *installation) {
		if status, _, messages := i.oona("topics", "apply", "--partitions", "2", "--tick-interval", "10ms", "--idle-horizon", "50ms"); status != 0 {
			t.Fatalf("topics apply: %q", messages)
		}
		i.aggregateBeyond(2, 2, windows.DefaultConfig())
		saved, path := i.exported(i.group)
		if len(saved.Partitions) != 2 || saved.Group != i.group || saved.Topic != i.topics.SeedMetrics {
			t.Fatalf("the file is %+v", saved)
		}
		i.deleteBelow(2, 2)

		renamed := i.group + "-renamed"
		show := func() (shown shownGroup) {
			t.Helper()
			status, out, messages := i.groupCommand("show", "--json", "--group", renamed)
			if err := json.Unmarshal([]byte(out), &shown); status != 0 || err != nil {
				t.Fatalf("show: status %d, %v in %q, %q", status, err, out, messages)
			}
			return shown
		}
		for _, p := range show().Partitions {
			if p.Offset != nil || p.Read != nil || p.Start != 2 {
				t.Fatalf("a group without commits: %+v", p)
			}
		}
		if status, out, _ := i.groupCommand("import", path, "--group", renamed); status != exitFailed || out != "" {
			t.Errorf("without --yes: status %d, %q", status, out)
		}
		if status, out, messages := i.groupCommand("import", path, "--group", renamed, "--yes"); status != 0 {
			t.Fatalf("import: status %d, %q, %q", status, out, messages)
		}
		for k, p := range show().Partitions {
			if p.Offset == nil || *p.Offset != saved.Partitions[k].Offset || p.Read == nil || *p.Read <= *p.Offset || p.Fault != "" {
				t.Errorf("restored: %+v, want %+v", p, saved.Partitions[k])
			}
		}
		before := i.group
		i.group = renamed
		i.aggregateBeyond(saved.Partitions[0].Offset, 2, windows.DefaultConfig())
		i.group = before
	})
}

// Nothing is written if one of the commits cannot be used.
func TestGroupThatCannotBeRestored(t *testing.T) {
	onInstallations(t, func(t *testing.T, i *installation) {
		if status, _, messages := i.oona("topics", "apply", "--partitions", "2", "--tick-interval", "10ms", "--idle-horizon", "50ms"); status != 0 {
			t.Fatalf("topics apply: %q", messages)
		}
		i.aggregateBeyond(2, 2, windows.DefaultConfig())
		good, _ := i.exported(i.group)
		for name, damage := range map[string]func(f *commits.File){
			"an offset that was set by hand": func(f *commits.File) { f.Partitions[1].Offset++ },
			"metadata of something else":     func(f *commits.File) { f.Partitions[1].Metadata = "x" },
			"a partition too many":           func(f *commits.File) { f.Partitions[1].Partition = 7 },
			"another topic":                  func(f *commits.File) { f.Topic = "other" },
			"another format":                 func(f *commits.File) { f.Format = "oona-group-2" },
		} {
			t.Run(name, func(t *testing.T) {
				f := good
				f.Partitions = append([]commits.Partition{}, good.Partitions...)
				damage(&f)
				path := filepath.Join(t.TempDir(), "damaged.json")
				w, err := os.Create(path)
				if err != nil {
					t.Fatal(err)
				}
				if err := f.Write(w); err != nil {
					t.Fatal(err)
				}
				if err := w.Close(); err != nil {
					t.Fatal(err)
				}
				other := i.group + "-other"
				if status, out, messages := i.groupCommand("import", path, "--group", other, "--yes"); status != exitFailed || out != "" || messages == "" {
					t.Errorf("status %d, %q, %q", status, out, messages)
				}
				held, err := kafka.New(i.cfg, nil).Commits(t.Context(), other, i.topics.SeedMetrics)
				if err != nil || held[0].Offset != bus.NoOffset || held[1].Offset != bus.NoOffset {
					t.Errorf("the group has %+v, %v", held, err)
				}
			})
		}
	})
}

func TestGroupWithMembers(t *testing.T) {
	onInstallations(t, func(t *testing.T, i *installation) {
		if status, _, messages := i.oona("topics", "apply", "--partitions", "2", "--tick-interval", "10ms", "--idle-horizon", "50ms"); status != 0 {
			t.Fatalf("topics apply: %q", messages)
		}
		i.aggregateBeyond(2, 2, windows.DefaultConfig())
		_, path := i.exported(i.group)
		member, err := kafka.New(i.cfg, nil).Member(bus.MemberOptions{Group: i.group, Instance: "w-0"}, readOnly{})
		if err != nil {
			t.Fatal(err)
		}
		messages, err := member.Subscribe(t.Context(), i.topics.SeedMetrics)
		if err != nil {
			t.Fatal(err)
		}
		drained := make(chan struct{})
		go func() {
			defer close(drained)
			for msg := range messages {
				msg.Ack()
			}
		}()
		await(t, "the member has its partitions", func() bool { return member.Joined() == nil })
		if status, out, messages := i.groupCommand("import", path, "--group", i.group, "--yes"); status != exitFailed || out != "" {
			t.Errorf("import: status %d, %q, %q", status, out, messages)
		}
		if status, out, _ := i.groupCommand("show", "--group", i.group); status != 0 || !strings.Contains(out, "member w-0") {
			t.Errorf("show: status %d, %q", status, out)
		}
		if err := member.Close(); err != nil {
			t.Fatal(err)
		}
		<-drained
		if status, out, messages := i.groupCommand("remove", "nobody", "--group", i.group); status != exitFailed || out != "" {
			t.Errorf("remove nobody: status %d, %q, %q", status, out, messages)
		}
		if status, _, messages := i.groupCommand("remove", "w-0", "--group", i.group); status != 0 {
			t.Errorf("remove: status %d, %q", status, messages)
		}
		if status, out, messages := i.groupCommand("import", path, "--group", i.group, "--yes"); status != 0 {
			t.Errorf("import: status %d, %q, %q", status, out, messages)
		}
	})
}

// readOnly is an owner that reads its partitions and commits nothing.
type readOnly struct{}

func (readOnly) Assign(_ context.Context, a bus.Assignment) (int64, bus.Consumer, error) {
	from, _ := a.Resume()
	return from, readOnly{}, nil
}

func (readOnly) Commit() (bus.Commit, bool)  { return bus.Commit{}, false }
func (readOnly) Committed(bus.Commit, error) {}
func (readOnly) End(int64)                   {}
func (readOnly) Revoke()                     {}
