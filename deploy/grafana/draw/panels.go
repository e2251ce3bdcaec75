package draw

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
)

// stat draws the last value of the first series, and its course below.
func (c *canvas) stat(one Answer, place box, over Span) error {
	all, err := one.courses()
	if err != nil {
		return err
	}
	inner := place.inside(8, 26, 8, 6)
	if len(all) == 0 || len(all[0].points) == 0 {
		text := cmp.Or(one.panel.FieldConfig.Defaults.NoValue, "No data")
		c.text(inner.x+inner.w/2, inner.y+inner.h/2+10, 26, faint, "middle", text)
		return nil
	}
	s := all[0]
	text, colour := s.field.Show(s.points[len(s.points)-1].V, second(over.To))
	words := ink
	if one.panel.Options.ColorMode == "background" {
		c.rect(place, colour, ` rx="3"`)
		c.text(place.x+8, place.y+18, 13, panel, "start", one.Panel, ` font-weight="600"`)
		words = panel
	} else if len(s.field.Thresholds.Steps) > 1 {
		words = colour
	}
	if one.panel.Options.GraphMode == "area" {
		c.spark(s.points, inner.inside(-8, inner.h*0.55, -8, -6), colour, over)
	}
	size := min(34, 1.5*inner.w/float64(max(len([]rune(text)), 1)))
	c.text(inner.x+inner.w/2, inner.y+inner.h/2+8, size, words, "middle", text, ` font-weight="600"`)
	return nil
}

func (c *canvas) spark(points []Point, b box, colour string, over Span) {
	low, high := extent(points)
	if low == high {
		high++
	}
	x, y := axis{low: second(over.From), high: second(over.To), from: b.x, to: b.x + b.w}, axis{low: low, high: high, from: b.y + b.h, to: b.y}
	var path strings.Builder
	for _, p := range points {
		fmt.Fprintf(&path, "L%.0f %.1f", x.at(p.T), y.at(p.V))
	}
	c.add(`<path d="M%.0f %.1f%sL%.0f %.1fZ" fill="%s" fill-opacity="0.13"/>`, x.at(points[0].T), b.y+b.h, path.String(), x.at(points[len(points)-1].T), b.y+b.h, colour)
}

func extent(points []Point) (low, high float64) {
	low, high = math.Inf(1), math.Inf(-1)
	for _, p := range points {
		if !math.IsNaN(p.V) && !math.IsInf(p.V, 0) {
			low, high = min(low, p.V), max(high, p.V)
		}
	}
	return low, high
}

// courses draws lines, areas and bars.
func (c *canvas) courses(one Answer, b box, over Span) error {
	all, err := one.courses()
	if err != nil {
		return err
	}
	if len(all) == 0 {
		c.none(b)
		return nil
	}
	plot := c.legend(all, b)
	plot = plot.inside(46, 4, 8, 18)
	bands := bandsOf(all)
	stack := all[0].field.Custom["stacking"] != nil && all[0].field.Custom["stacking"].(map[string]any)["mode"] == "normal"
	if stack {
		pile(all)
	}
	right := sideOf(all, "right")
	y, y2 := axisOf(sideOf(all, ""), one.panel.FieldConfig.Defaults, plot), axis{}
	for _, v := range y.ticks(max(int(plot.h/38), 2)) {
		c.add(`<path d="M%.1f %.1fH%.1f" stroke="%s"/>`, plot.x, y.at(v), plot.x+plot.w, ruler)
		c.text(plot.x-6, y.at(v)+4, 11, faint, "end", unit(v, one.panel.FieldConfig.Defaults.Unit, 0))
	}
	if len(right) > 0 {
		plot.w -= 44
		y2 = axisOf(right, Field{}, plot)
		for _, v := range y2.ticks(max(int(plot.h/38), 2)) {
			c.text(plot.x+plot.w+6, y2.at(v)+4, 11, faint, "start", unit(v, one.panel.FieldConfig.Defaults.Unit, 0))
		}
	}
	x := c.times(plot, over)
	for _, band := range bands {
		c.band(band[0].points, band[1].points, x, y, band[1])
	}
	base := math.Max(y.low, math.Min(0, y.high))
	for i := len(all) - 1; i >= 0; i-- {
		scale := y
		if all[i].field.word("axisPlacement") == "right" {
			scale = y2
		}
		c.course(all[i], x, scale, base, over)
	}
	return nil
}

// sideOf returns the series whose axis is on a side.
func sideOf(all []course, side string) (some []course) {
	for _, s := range all {
		if (s.field.word("axisPlacement") == "right") == (side == "right") {
			some = append(some, s)
		}
	}
	return some
}

func axisOf(all []course, f Field, plot box) axis {
	low, high := math.Inf(1), math.Inf(-1)
	for _, s := range all {
		l, h := extent(s.points)
		low, high = min(low, l), max(high, h)
	}
	if math.IsInf(low, 0) {
		low, high = 0, 1
	}
	if low > 0 && low < 0.5*high {
		low = 0
	}
	if f.Min != nil {
		low = *f.Min
	}
	if high <= low {
		high = low + max(1, math.Abs(low)*0.1)
	}
	high += (high - low) * 0.06
	if f.Max != nil {
		high = *f.Max
	}
	y := axis{low: low, high: high, from: plot.y + plot.h, to: plot.y}
	if scale, ok := f.Custom["scaleDistribution"].(map[string]any); ok && scale["type"] == "symlog" {
		y.threshold, _ = scale["linearThreshold"].(float64)
	}
	return y
}

// pile adds to each series those before it: above zero and below zero by themselves.
func pile(all []course) {
	above, below := make(map[float64]float64), make(map[float64]float64)
	for i := range all {
		points := slices.Clone(all[i].points)
		for j, p := range points {
			sum := above
			if p.V < 0 {
				sum = below
			}
			sum[p.T] += p.V
			points[j].V = sum[p.T]
		}
		all[i].points = points
	}
}

// bandsOf returns pairs of a lower and an upper bound.
func bandsOf(all []course) (bands [][2]course) {
	for _, upper := range all {
		for _, lower := range all {
			if lower.name == upper.field.word("fillBelowTo") {
				bands = append(bands, [2]course{lower, upper})
			}
		}
	}
	return bands
}

func (c *canvas) band(lower, upper []Point, x, y axis, style course) {
	low := make(map[float64]float64)
	for _, p := range lower {
		low[p.T] = p.V
	}
	var there, back string
	for _, p := range upper {
		if v, ok := low[p.T]; ok {
			there += fmt.Sprintf("L%.0f %.1f", x.at(p.T), y.at(p.V))
			back = fmt.Sprintf("L%.0f %.1f", x.at(p.T), y.at(v)) + back
		}
	}
	if there != "" {
		c.add(`<path d="M%sZ" fill="%s" fill-opacity="%.2f"/>`, strings.TrimPrefix(there+back, "L"), style.colour, style.field.number("fillOpacity", 20)/100)
	}
}

func (c *canvas) course(s course, x, y axis, base float64, over Span) {
	if s.field.word("drawStyle") == "bars" {
		w := max(1, (x.to-x.from)/over.seconds()*over.Step.Seconds()*0.7)
		for _, p := range s.points {
			if p.V != 0 {
				from, to := y.at(p.V), y.at(0)
				c.rect(box{x.at(p.T) - w/2, min(from, to), w, math.Abs(from - to)}, s.colour, "")
			}
		}
		return
	}
	for _, part := range unbroken(s.points, over) {
		var path strings.Builder
		for i, p := range part {
			if i > 0 && i < len(part)-1 && part[i-1].V == p.V && part[i+1].V == p.V {
				continue // on a straight line
			}
			fmt.Fprintf(&path, "%c%.0f %.1f", "LM"[b2i(i == 0)], x.at(p.T), y.at(p.V))
		}
		if fill := s.field.number("fillOpacity", 0); fill > 0 && s.field.word("fillBelowTo") == "" {
			c.add(`<path d="%sL%.0f %.1fL%.0f %.1fZ" fill="%s" fill-opacity="%.2f"/>`, path.String(), x.at(part[len(part)-1].T), y.at(base), x.at(part[0].T), y.at(base), s.colour, min(1, fill/100+0.3))
		}
		if w := s.field.number("lineWidth", 1); w > 0 {
			c.add(`<path d="%s" fill="none" stroke="%s" stroke-width="%.1f"/>`, path.String(), s.colour, w)
		}
	}
}

func b2i(b bool) int {
	if b {
		return 1
	}
	return 0
}

// unbroken returns the parts of a course between which points are missing.
func unbroken(points []Point, over Span) (parts [][]Point) {
	begin := 0
	for i, p := range points {
		if math.IsNaN(p.V) || math.IsInf(p.V, 0) || i > 0 && p.T-points[i-1].T > 1.5*over.Step.Seconds() {
			if i > begin {
				parts = append(parts, points[begin:i])
			}
			begin = i
			if math.IsNaN(p.V) || math.IsInf(p.V, 0) {
				begin = i + 1
			}
		}
	}
	if begin < len(points) {
		parts = append(parts, points[begin:])
	}
	return parts
}

// legend draws the names of series at the bottom and returns what is left.
func (c *canvas) legend(all []course, b box) box {
	x, y, lines := b.x, b.y+b.h-4, 1
	type item struct {
		x      float64
		line   int
		name   string
		colour string
	}
	var items []item
	for _, s := range all {
		w := float64(len(s.name))*6.3 + 26
		if x+w > b.x+b.w && x > b.x {
			x, lines = b.x, lines+1
		}
		items = append(items, item{x, lines, s.name, s.colour})
		x += w
	}
	for _, i := range items {
		at := y - float64(lines-i.line)*15
		c.rect(box{i.x, at - 7, 12, 4}, i.colour, ` rx="2"`)
		c.text(i.x+16, at, 11, faint, "start", i.name)
	}
	return b.inside(0, 0, 0, float64(lines)*15+2)
}

// timeline draws states over time, a row for each series, in their order.
func (c *canvas) timeline(one Answer, b box, over Span) error {
	all, err := one.courses()
	if err != nil {
		return err
	}
	if len(all) == 0 {
		c.none(b)
		return nil
	}
	names := 0.0
	for _, s := range all {
		names = max(names, min(float64(len(s.name))*6.8, 230))
	}
	seen := make(map[string]string)
	plot := b.inside(names+14, 0, 8, 38)
	x := c.times(plot, over)
	height := plot.h / float64(len(all))
	for i, s := range all {
		y := plot.y + float64(i)*height
		c.text(plot.x-8, y+height/2+4, 12, ink, "end", fit(s.name, 230, 12))
		for _, part := range states(s.points, over) {
			text, colour := s.field.Show(part.value, second(over.To))
			seen[text] = colour
			c.rect(box{x.at(part.from), y + height*0.08, max(x.at(part.to)-x.at(part.from), 1), height * 0.84}, colour, "")
		}
	}
	at := b.x
	for _, text := range slices.Sorted(maps.Keys(seen)) {
		c.rect(box{at, b.y + b.h - 11, 11, 11}, seen[text], "")
		c.text(at+16, b.y+b.h-2, 11, faint, "start", text)
		at += float64(len(text))*6.3 + 34
	}
	return nil
}

type state struct{ from, to, value float64 }

// states joins points of the same value.
func states(points []Point, over Span) (all []state) {
	step := over.Step.Seconds()
	for _, p := range points {
		if n := len(all) - 1; n >= 0 && p.T-all[n].to < 0.5*step {
			if all[n].value == p.V {
				all[n].to = p.T + step
				continue
			}
			all[n].to = p.T
		}
		all = append(all, state{p.T, p.T + step, p.V})
	}
	for i := range all {
		all[i].to = min(all[i].to, second(over.To))
	}
	return all
}
