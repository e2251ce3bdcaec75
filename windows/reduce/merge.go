package reduce

// Merge adds the samples of o, as if they had been added to m. Both must have begun with
// the same options. The result is that of adding all samples to one Metric, except that
// sums are made in another order. If several frames have a seed's worst value, the offset
// is the least.
//
// The lists of worst seeds stay exact: a seed that belongs on the list of all samples is on
// the list of those among which it has its worst value.
func (m *Metric) Merge(o *Metric) {
	m.notMeasured += o.notMeasured
	m.ofActive += o.ofActive
	m.infinite += o.infinite
	m.moments.merge(o.moments)
	m.histogram.merge(&o.histogram)
	m.worst.greatest.merge(&o.worst.greatest)
	m.worst.least.merge(&o.worst.least)
}

func (h *histogram) merge(o *histogram) {
	h.zero += o.zero
	h.positive.merge(&o.positive)
	h.negative.merge(&o.negative)
}

// merge adds the counts of o. They go to carried, which has room for any number.
func (o *octaves) merge(other *octaves) {
	if len(other.counts) == 0 {
		return
	}
	o.cover(other.first)
	o.cover(other.first + uint32(len(other.counts)) - 1)
	if o.carried == nil {
		o.carried = make(map[uint32]uint64)
	}
	for j, n := range other.counts {
		if n > 0 {
			o.carried[other.first+uint32(j)] += uint64(n)
		}
	}
	for i, n := range other.carried {
		o.carried[i] += n
	}
}

// merge offers the entries of another ranking.
func (r *ranking) merge(o *ranking) {
	for _, entry := range o.list {
		if held := r.find(entry); held != nil {
			held.offset = min(held.offset, entry.offset)
			continue
		}
		if len(r.list) < r.limit || r.limit > 0 && entry.before(&r.full) {
			r.place(entry)
		}
	}
}

// find returns the entry of the same seed with the same value, or nil.
func (r *ranking) find(entry extreme) *extreme {
	for i := range r.list {
		if e := &r.list[i]; e.seed == entry.seed && e.value == entry.value {
			return e
		}
	}
	return nil
}
