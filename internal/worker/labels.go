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
			addLabel(family, label)
		}
		return families, err
	})
}

// addLabel adds a label to all series of a family. It copies their labels, because a
// collector may give out the same ones at each scrape. A family may have 100,000 series, so
// all copies are in one slice, and the place of the label is looked for once: labels are
// sorted by name, and a registry has one set of names in a family. (Families that were not
// checked may have more; if these are of one size, a label may be out of order, which is
// allowed.)
func addLabel(family *dto.MetricFamily, label *dto.LabelPair) {
	size := 0
	for _, m := range family.Metric {
		size += len(m.Label) + 1
	}
	copies := make([]*dto.LabelPair, 0, size)
	at, names := 0, -1
	for _, m := range family.Metric {
		if len(m.Label) != names {
			names = len(m.Label)
			at, _ = slices.BinarySearchFunc(m.Label, label, func(a, b *dto.LabelPair) int { return cmp.Compare(a.GetName(), b.GetName()) })
		}
		begin := len(copies)
		copies = append(copies, m.Label[:at]...)
		copies = append(copies, label)
		copies = append(copies, m.Label[at:]...)
		m.Label = copies[begin:len(copies):len(copies)]
	}
}
