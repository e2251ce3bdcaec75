package history

import (
	"context"
	"fmt"
	"slices"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/internal/settings"
)

// Correction corrects a difference between the settings topic and the log of a
// partition.
type Correction struct {
	Partition int32
	Had, Has  string // texts that describe the wrong value in the settings topic, and the value in the log
	entry     settings.Entry
}

// Corrections compares the settings topic, which has the content held, with the logs, and returns the
// corrections that it needs. If it is not known which configuration is in effect in a partition, only
// its incarnation is corrected. Catalogues cannot be corrected: see LostCatalogues.
func (h *History) Corrections(held *settings.Settings) (all []Correction) {
	for _, p := range h.Partitions {
		all = append(all, p.corrections(h.Topic, held)...)
	}
	return all
}

// Correct writes corrections to the settings topic.
func (h *History) Correct(ctx context.Context, topics oona.Topics, corrections []Correction) error {
	var entries []settings.Entry
	for _, c := range corrections {
		entries = append(entries, c.entry)
	}
	return settings.Write(ctx, h.Bus, topics, entries...)
}

func numbered(what string, n int64) string {
	if n == 0 {
		return "no " + what
	}
	return fmt.Sprintf("%s %d", what, n)
}

// lostWindows returns a fault if the log has lost the configuration that the settings topic has.
// Otherwise, or if that is not known, it returns "".
func (p *Partition) lostWindows(held *settings.Settings) string {
	has, reach := held.Windows[p.Number].Generation, p.Engine.Configurations()
	if p.Unknown != nil || p.Empty() || has == 0 || reach[len(reach)-1].Config.Generation != 0 {
		return ""
	}
	return fmt.Sprintf("partition %d: the settings topic has generation %d of the windows, but the log has no configuration, so the aggregators' own settings hold. Write the next generation with: oona windows apply --from TIME", p.Number, has)
}

// corrections returns the corrections of a partition. The settings topic may have a greater
// incarnation than the log: then the number was reserved, but the record was not written.
func (p *Partition) corrections(topic string, held *settings.Settings) (all []Correction) {
	if has, must := held.Incarnation(topic, p.Number), p.Engine.Incarnation(); has < must {
		all = append(all, Correction{
			p.Number, numbered("incarnation", int64(has)), numbered("incarnation", int64(must)),
			settings.IncarnationEntry(topic, p.Number, must),
		})
	}
	reach := p.Engine.Configurations()
	newest := reach[len(reach)-1].Record()
	if p.Unknown != nil || newest.Generation == 0 {
		return all
	}
	has := held.Windows[p.Number]
	same := has
	same.From = newest.From // the settings topic has the time before rounding
	if same != newest {
		all = append(all, Correction{
			p.Number, numbered("generation", int64(has.Generation)), numbered("generation", int64(newest.Generation)),
			settings.WindowsEntry(p.Number, newest),
		})
	}
	return all
}

// LostCatalogues returns a text for each catalogue that the log names and that workers cannot find.
func (h *History) LostCatalogues(held *settings.Settings) (all []string) {
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
