package history

import (
	"context"
	"fmt"
	"io"
	"slices"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/internal/settings"
)

// Restore corrects the settings topic, which has held, from the history. It writes to w
// what it corrects, and what it cannot.
func (h *History) Restore(ctx context.Context, topics oona.Topics, held *settings.Settings, w io.Writer) error {
	var entries []settings.Entry
	for _, p := range h.Partitions {
		for _, d := range p.differences(topics.SeedMetrics, held) {
			fmt.Fprintf(w, "partition %d: the log has %s, but the settings topic had %s; the settings topic is corrected\n", p.Number, d.log, d.settings)
			entries = append(entries, d.entry)
		}
		if p.Unknown != "" {
			fmt.Fprintf(w, "partition %d: its configuration is not restored, as it is not known which one holds: %s\n", p.Number, p.Unknown)
		}
	}
	for _, lost := range h.lostCatalogues(held) {
		fmt.Fprintln(w, lost)
	}
	return settings.Write(ctx, h.Bus, topics, entries...)
}

// settingsDifference is a difference between the settings topic and the log of a
// partition.
type settingsDifference struct {
	settings, log string         // in words
	entry         settings.Entry // the right one, from the log
}

func numbered(what string, n int64) string {
	if n == 0 {
		return "no " + what
	}
	return fmt.Sprintf("%s %d", what, n)
}

// lostWindows returns a fault if the log has lost the configuration that the settings
// topic has, and "" otherwise, or if that is not known.
func (p *Partition) lostWindows(held *settings.Settings) string {
	has, reach := held.Windows[p.Number].Generation, p.Engine.Configurations()
	if p.Unknown != "" || p.Empty() || has == 0 || reach[len(reach)-1].Config.Generation != 0 {
		return ""
	}
	return fmt.Sprintf("partition %d: the settings topic has generation %d of the windows, but the log has no configuration, so the aggregators' own settings hold. Write the next generation with: oona windows apply --from TIME", p.Number, has)
}

// differences returns what is missing or wrong for a partition in the settings topic.
// A greater incarnation than the log's is right: it was reserved, and its record was
// not written.
func (p *Partition) differences(topic string, held *settings.Settings) (all []settingsDifference) {
	if has, must := held.Incarnation(topic, p.Number), p.Engine.Incarnation(); has < must {
		all = append(all, settingsDifference{
			numbered("incarnation", int64(has)), numbered("incarnation", int64(must)),
			settings.IncarnationEntry(topic, p.Number, must),
		})
	}
	reach := p.Engine.Configurations()
	newest := reach[len(reach)-1].Record()
	if p.Unknown != "" || newest.Generation == 0 {
		return all
	}
	has := held.Windows[p.Number]
	same := has
	same.From = newest.From // the settings topic has the time before rounding
	if same != newest {
		all = append(all, settingsDifference{
			numbered("generation", int64(has.Generation)), numbered("generation", int64(newest.Generation)),
			settings.WindowsEntry(p.Number, newest),
		})
	}
	return all
}

// lostCatalogues returns a fault for each catalogue that the log names and that workers
// cannot get.
func (h *History) lostCatalogues(held *settings.Settings) (all []string) {
	for _, p := range h.Partitions {
		for _, c := range p.Engine.Configurations() {
			hash := c.Config.Catalogue
			_, found, err := held.Catalogue(hash)
			if found && err == nil {
				continue
			}
			says := fmt.Sprintf("catalogue %s, which the log names, is neither built in nor in the settings topic. Aggregators cannot fold the log without it. Write it again with: oona topics apply --catalogue FILE", hash)
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
