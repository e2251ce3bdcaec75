package main

import (
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/alecthomas/kong"

	"github.com/morphogenetic/oona/internal/worker"
)

// TestReplayFlagsAreDocumented checks that docs/replay.md or docs/backfill.md mentions
// each flag of the replays. Groups of flags that other commands have, too, are explained elsewhere. The
// reverse is a part of TestCheck.
func TestReplayFlagsAreDocumented(t *testing.T) {
	parser, err := kong.New(newGrammar(), append(worker.Options(), kong.Name("oona"))...)
	if err != nil {
		t.Fatal(err)
	}
	documented := flagsOf(t, "../../docs/replay.md")
	maps.Copy(documented, flagsOf(t, "../../docs/backfill.md"))
	commands := 0
	for _, command := range parser.Model.Leaves(true) {
		if command.Parent.Name != "replay" {
			continue
		}
		commands++
		for _, flag := range slices.Concat(command.AllFlags(true)...) {
			elsewhere := flag.Group != nil && slices.Contains([]string{"Logs", "Bus", "Windows", "Tensors"}, flag.Group.Key)
			if !elsewhere && !slices.Contains([]string{"help", "version", "config"}, flag.Name) && !documented[flag.Name] {
				t.Errorf("docs/replay.md and docs/backfill.md do not mention --%s of oona %s", flag.Name, command.Path())
			}
		}
	}
	if commands < 2 {
		t.Errorf("oona replay has %d commands", commands)
	}
}

// flagsOf returns the flags that a page mentions. --no-NAME is also a mention of NAME.
func flagsOf(t *testing.T, page string) map[string]bool {
	t.Helper()
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	flags := make(map[string]bool)
	for _, found := range regexp.MustCompile(`(?:^|[^\w-])--(?:no-)?([a-z][a-z0-9-]+)`).FindAllStringSubmatch(string(text), -1) {
		flags[found[1]] = true
		_, whole, _ := strings.Cut(found[0], "--")
		flags[whole] = true // a flag may be named --no-progress
	}
	return flags
}

// The help adds ,... to the placeholder of a flag that takes a list.
func TestPlaceholdersOfLists(t *testing.T) {
	parser, err := kong.New(newGrammar(), append(worker.Options(), kong.Name("oona"))...)
	if err != nil {
		t.Fatal(err)
	}
	for _, command := range parser.Model.Leaves(true) {
		for _, flag := range slices.Concat(command.AllFlags(true)...) {
			if strings.Contains(flag.FormatPlaceHolder(), "...,...") {
				t.Errorf("%s: %s", command.Path(), flag.FormatPlaceHolder())
			}
		}
	}
}
