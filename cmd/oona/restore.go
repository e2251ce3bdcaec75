package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"slices"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/internal/settings"
)

// restore writes into the settings topic what it lacks of what a history says.
func (c *windowsCommand) restore(ctx context.Context, h *history, w io.Writer, logger *slog.Logger) error {
	topics, err := oona.NewTopics(c.Prefix)
	if err != nil {
		return err
	}
	kept, err := openShelf(ctx, c.Bus, topics, logger)
	if err != nil {
		return err
	}
	var entries []settings.Entry
	for _, p := range h.partitions {
		for _, d := range p.differences(topics.SeedMetrics, kept.held) {
			fmt.Fprintf(w, "partition %d: the settings topic had %s; the log has %s, which is written\n", p.partition, d.settings, d.log)
			entries = append(entries, d.entry)
		}
		if p.unknown != "" {
			fmt.Fprintf(w, "partition %d: no configuration is written, as it is not known what holds: %s\n", p.partition, p.unknown)
		}
	}
	for _, lost := range h.lostCatalogues(kept.held) {
		fmt.Fprintln(w, lost)
	}
	return settings.Write(c.Bus, topics, entries...)
}

// settingsDifference is what the settings topic and the log of a partition say
// differently.
type settingsDifference struct {
	settings, log string
	entry         settings.Entry // the log's
}

// differences lists what the settings topic must say of a partition and does not.
// A greater incarnation than the log's is none: its record was not written.
func (p *partitionHistory) differences(topic string, held *settings.Settings) (all []settingsDifference) {
	if has, must := held.Incarnation(topic, p.partition), p.engine.Incarnation(); has < must {
		all = append(all, settingsDifference{
			fmt.Sprintf("incarnation %d", has), fmt.Sprintf("incarnation %d", must),
			settings.IncarnationEntry(topic, p.partition, must),
		})
	}
	reach := p.engine.Configurations()
	newest := reach[len(reach)-1].Record()
	if p.unknown != "" || newest.Generation == 0 {
		return all
	}
	has := held.Windows[p.partition]
	same := has
	same.From = newest.From // in the record it was not rounded yet
	if same != newest {
		all = append(all, settingsDifference{
			fmt.Sprintf("generation %d of the windows", has.Generation), fmt.Sprintf("generation %d", newest.Generation),
			settings.WindowsEntry(p.partition, newest),
		})
	}
	return all
}

// lostCatalogues says of each catalogue that a configuration in reach names, and
// workers cannot have, what is wrong with it.
func (h *history) lostCatalogues(held *settings.Settings) (all []string) {
	for _, p := range h.partitions {
		for _, c := range p.engine.Configurations() {
			hash := c.Config.Catalogue
			_, found, err := held.Catalogue(hash)
			if found && err == nil {
				continue
			}
			says := fmt.Sprintf("catalogue %s, which the log names, is neither built in nor in the settings topic: aggregators cannot fold the log without it. Write it again with: oona topics apply --catalogue FILE", hash)
			if err != nil {
				says = err.Error()
			}
			if !slices.Contains(all, says) {
				all = append(all, says)
			}
		}
	}
	return all
}
