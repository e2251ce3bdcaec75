package draw

import (
	"maps"
	"math"
	"slices"
	"strconv"
)

// table draws rows. What does not fit into the panel is said to be more.
func (c *canvas) table(one Answer, b box, over Span) error {
	columns, rows := one.Table()
	if len(rows) == 0 {
		c.none(b)
		return nil
	}
	const height = 22
	fields, cells := make([]Field, len(columns)), make([][]string, len(rows))
	widths, sum := make([]float64, len(columns)), 0.0
	for i, name := range columns {
		f, err := one.panel.Field(name)
		if err != nil {
			return err
		}
		fields[i], widths[i] = f, float64(len(name))
	}
	for r, row := range rows {
		for i, name := range columns {
			text := row.Text[name]
			if v, ok := row.Values[name]; ok {
				text, _ = fields[i].Show(v, second(over.To))
			}
			cells[r] = append(cells[r], text)
			widths[i] = max(widths[i], float64(len(text)))
		}
	}
	for _, w := range widths {
		sum += w + 2
	}
	at := b.x
	for i, name := range columns {
		w := (widths[i] + 2) / sum * b.w
		c.text(at+6, b.y+15, 12, faint, "start", fit(name, w-8, 12), ` font-weight="600"`)
		for r := range rows {
			y := b.y + float64(r+1)*height
			if y+height > b.y+b.h {
				break
			}
			colour := ink
			if v, ok := rows[r].Values[name]; ok && fields[i].Custom["cellOptions"] != nil {
				_, background := fields[i].Show(v, 0)
				c.rect(box{at + 1, y + 1, w - 2, height - 2}, background, "")
				colour = panel
			}
			c.text(at+6, y+15, 12, colour, "start", fit(cells[r][i], w-8, 12))
		}
		at += w
	}
	for r := range rows {
		y := b.y + float64(r+1)*height
		if y+height > b.y+b.h {
			c.text(b.x+b.w-4, b.y+15, 11, faint, "end", strconv.Itoa(len(rows)-r)+" more below")
			break
		}
		c.add(`<path d="M%.1f %.1fH%.1f" stroke="%s"/>`, b.x, y, b.x+b.w, ruler)
	}
	return nil
}

// viridis is a scale of colours that those see who do not see red and green apart.
var viridis = []string{"#440154", "#482878", "#3e4a89", "#31688e", "#26828e", "#1f9e89", "#35b779", "#6dcd59", "#b4de2c", "#fde725"}

// perOctave is how many buckets an octave has in a picture. Native histograms have 32,
// which are too many to see.
const perOctave = 4

// slice is a histogram at a time: counts by the number of a bucket.
type slice struct {
	t      float64
	counts map[int]float64
}

// heatmap draws the course of a histogram, native or of classic buckets, on an axis of
// octaves.
func (c *canvas) heatmap(one Answer, b box, over Span) error {
	slices_, width := slicesOf(one)
	low, high, most := math.MaxInt, math.MinInt, 0.0
	for _, s := range slices_ {
		for i, n := range s.counts {
			if n > 0 {
				low, high, most = min(low, i), max(high, i), max(most, n)
			}
		}
	}
	if most == 0 {
		c.none(b)
		return nil
	}
	high += width
	plot := b.inside(52, 4, 8, 18)
	x := c.times(plot, over)
	y := axis{low: float64(low), high: float64(high), from: plot.y + plot.h, to: plot.y}
	step := (x.to - x.from) / 60
	if len(slices_) > 1 {
		step = x.at(slices_[1].t) - x.at(slices_[0].t)
	}
	for _, s := range slices_ {
		for _, i := range slices.Sorted(maps.Keys(s.counts)) {
			n := s.counts[i]
			if n <= 0 {
				continue
			}
			colour := viridis[min(len(viridis)-1, int(math.Sqrt(n/most)*float64(len(viridis))))]
			c.rect(box{x.at(s.t) - step, y.at(float64(i + width)), step + 0.3, y.at(float64(i)) - y.at(float64(i+width)) + 0.3}, colour, "")
		}
	}
	for v := math.Pow(10, math.Ceil(float64(low)/perOctave*math.Log10(2))); math.Log2(v)*perOctave <= float64(high); v *= 10 {
		c.text(plot.x-6, y.at(math.Log2(v)*perOctave)+4, 11, faint, "end", unit(v, one.panel.FieldConfig.Defaults.Unit, 0))
	}
	return nil
}

// slicesOf returns the histograms of a panel, and how many places a bucket covers.
func slicesOf(one Answer) (all []slice, width int) {
	var classic []Series
	for _, t := range one.Targets {
		for _, s := range t.Series {
			if len(s.Histograms) == 0 {
				classic = append(classic, s)
				continue
			}
			for _, h := range s.Histograms {
				counts := make(map[int]float64)
				for _, bucket := range h.Buckets {
					if bucket.High > 0 && bucket.Low > 0 {
						counts[int(math.Floor(math.Log2(bucket.High)*perOctave-1e-9))] += bucket.Count
					}
				}
				all = append(all, slice{h.T, counts})
			}
		}
	}
	if len(classic) == 0 {
		return all, 1
	}
	return ofClassic(classic)
}

// ofClassic takes the differences of cumulative buckets.
func ofClassic(series []Series) (all []slice, width int) {
	bound := func(s Series) float64 {
		v, err := strconv.ParseFloat(s.Metric["le"], 64)
		if err != nil {
			return math.NaN()
		}
		return v
	}
	slices.SortFunc(series, func(a, b Series) int {
		if bound(a) < bound(b) {
			return -1
		}
		return 1
	})
	at := make(map[float64]map[int]float64)
	before := make(map[float64]float64)
	width = 2 * perOctave // the bounds of Oona's are a factor of 4 apart
	for _, s := range series {
		le := bound(s)
		for _, p := range s.Values {
			if at[p.T] == nil {
				at[p.T] = make(map[int]float64)
			}
			if le > 0 && !math.IsInf(le, 0) {
				at[p.T][int(math.Round(math.Log2(le)*perOctave))-width] = p.V - before[p.T]
			}
			before[p.T] = p.V
		}
	}
	for _, t := range slices.Sorted(maps.Keys(at)) {
		all = append(all, slice{t, at[t]})
	}
	return all, width
}
