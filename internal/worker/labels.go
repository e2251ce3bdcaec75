package worker

import (
	"cmp"
	"slices"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
)

// PrefixLabel is the label of all series that has the prefix of topic names, so that
// two installations in one Prometheus can be told apart.
const PrefixLabel = "prefix"

// WithPrefix returns a gatherer that adds the label prefix to all series of another one.
func WithPrefix(metrics prometheus.Gatherer, prefix string) prometheus.Gatherer {
	name := PrefixLabel
	label := &dto.LabelPair{Name: &name, Value: &prefix}
	return prometheus.GathererFunc(func() ([]*dto.MetricFamily, error) {
		families, err := metrics.Gather()
		for _, family := range families {
			for _, m := range family.Metric {
				m.Label = withLabel(m.Label, label)
			}
		}
		return families, err
	})
}

// withLabel returns labels, which are sorted by name, with another one. It copies them,
// because a collector may give out the same labels at each scrape.
func withLabel(labels []*dto.LabelPair, label *dto.LabelPair) []*dto.LabelPair {
	at, _ := slices.BinarySearchFunc(labels, label, func(a, b *dto.LabelPair) int { return cmp.Compare(a.GetName(), b.GetName()) })
	all := make([]*dto.LabelPair, len(labels)+1)
	copy(all, labels[:at])
	all[at] = label
	copy(all[at+1:], labels[at:])
	return all
}
