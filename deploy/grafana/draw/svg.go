package draw

import (
	"bytes"
	"context"
	"fmt"
	"html"
	"math"
	"strings"
)

// Sizes of a picture. The grid of a dashboard has 24 columns.
const (
	width   = 1320
	column  = width / 24.0
	line    = 34 // height of a row of the grid
	gap     = 6
	heading = 62
)

// Colours of a picture.
const (
	paper  = "#f4f5f7"
	panel  = "#ffffff"
	ink    = "#24292e"
	faint  = "#6b727b"
	border = "#dcdfe4"
	ruler  = "#e9ebee"
)

// palette colours series that have no colour.
var palette = []string{"#3274d9", "#e0752d", "#3f8f6b", "#b877d9", "#c8b04a", "#56b4c9", "#d92b3a", "#8a5a44", "#d683ce", "#5a6270", "#7a9c2f", "#b5651d"}

// canvas is an SVG that is being written.
type canvas struct{ bytes.Buffer }

func (c *canvas) add(format string, args ...any) { fmt.Fprintf(&c.Buffer, format+"\n", args...) }

func (c *canvas) rect(b box, fill string, more string) {
	c.add(`<rect x="%.1f" y="%.1f" width="%.1f" height="%.1f" fill="%s"%s/>`, b.x, b.y, b.w, b.h, fill, more)
}

// text writes text. anchor is start, middle or end.
func (c *canvas) text(x, y, size float64, colour, anchor, text string, more ...string) {
	c.add(`<text x="%.1f" y="%.1f" font-size="%.0f" fill="%s" text-anchor="%s"%s>%s</text>`, x, y, size, colour, anchor, strings.Join(more, ""), html.EscapeString(text))
}

// box is a place on the canvas.
type box struct{ x, y, w, h float64 }

func (b box) inside(left, top, right, bottom float64) box {
	return box{b.x + left, b.y + top, b.w - left - right, b.h - top - bottom}
}

// fit shortens a text to a width, with a mark.
func fit(text string, width, size float64) string {
	most := int(width / (size * 0.54))
	if runes := []rune(text); len(runes) > most {
		return string(runes[:max(most-1, 0)]) + "…"
	}
	return text
}

// Draw returns a dashboard as SVG, with the answers of Prometheus to its queries.
func (d *Dashboard) Draw(ctx context.Context, p Prometheus, values Values, over Span) ([]byte, error) {
	answers, err := d.Ask(ctx, p, values, over)
	if err != nil {
		return nil, err
	}
	c := new(canvas)
	bottom := 0
	for _, p := range d.Panels {
		bottom = max(bottom, p.GridPos.Y+p.GridPos.H)
	}
	height := heading + float64(bottom*line) + gap
	c.add(`<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %.0f" font-family="Inter, Helvetica, Arial, sans-serif">`, width, height)
	c.rect(box{0, 0, width, height}, paper, "")
	c.text(gap+4, 24, 19, ink, "start", d.Title, ` font-weight="600"`)
	c.text(gap+4, 48, 12, faint, "start", d.chosen(values))
	for i, one := range answers {
		place := box{float64(one.panel.GridPos.X)*column + gap/2, heading + float64(one.panel.GridPos.Y*line) + gap/2, float64(one.panel.GridPos.W)*column - gap, float64(one.panel.GridPos.H*line) - gap}
		if err := c.panel(i, one, place, values, over); err != nil {
			return nil, err
		}
	}
	c.add(`</svg>`)
	return c.Bytes(), nil
}

// chosen says which values the variables have that a user sees.
func (d *Dashboard) chosen(values Values) string {
	var all []string
	for _, v := range d.Templating.List {
		value := values[v.Name]
		if v.IncludeAll && value == v.AllValue {
			value = "All"
		}
		for _, o := range v.Options {
			if o.Value == value {
				value = o.Text
			}
		}
		if value != "" {
			all = append(all, v.Name+": "+value)
		}
	}
	return strings.Join(all, "     ")
}

func (c *canvas) panel(number int, one Answer, place box, values Values, over Span) error {
	p := one.panel
	if p.Type == "row" {
		c.text(place.x+4, place.y+place.h-8, 14, ink, "start", "▾ "+values.Substitute(p.Title), ` font-weight="600"`)
		return nil
	}
	c.rect(place, panel, fmt.Sprintf(` rx="3" stroke="%s"`, border))
	c.text(place.x+8, place.y+18, 13, ink, "start", fit(values.Substitute(p.Title), place.w-16, 13), ` font-weight="600"`)
	c.add(`<clipPath id="p%d"><rect x="%.1f" y="%.1f" width="%.1f" height="%.1f"/></clipPath><g clip-path="url(#p%d)">`, number, place.x, place.y, place.w, place.h, number)
	defer c.add(`</g>`)
	inner := place.inside(8, 26, 8, 6)
	switch p.Type {
	case "stat":
		return c.stat(one, place, over)
	case "timeseries":
		return c.courses(one, inner, over)
	case "state-timeline":
		return c.timeline(one, inner, over)
	case "table":
		return c.table(one, inner, over)
	case "heatmap":
		return c.heatmap(one, inner, over)
	}
	return fmt.Errorf("panel %q is a %s, which draw does not know", p.Title, p.Type)
}

// none says that a panel has no data.
func (c *canvas) none(b box) {
	c.text(b.x+b.w/2, b.y+b.h/2, 13, faint, "middle", "No data")
}

// axis is a scale from values to places. With a threshold it is logarithmic beyond it.
type axis struct{ low, high, from, to, threshold float64 }

func (a axis) at(v float64) float64 {
	low, high := a.linear(a.low), a.linear(a.high)
	return a.from + (a.linear(v)-low)/(high-low)*(a.to-a.from)
}

func (a axis) linear(v float64) float64 {
	if a.threshold == 0 {
		return v
	}
	return math.Copysign(math.Log10(1+math.Abs(v)/a.threshold), v)
}

// ticks returns round values between the bounds of an axis.
func (a axis) ticks(about int) (all []float64) {
	if a.threshold > 0 {
		return a.decades()
	}
	rough := (a.high - a.low) / float64(about)
	step := math.Pow(10, math.Floor(math.Log10(rough)))
	for _, factor := range []float64{1, 2, 5, 10} {
		if step*factor >= rough {
			step *= factor
			break
		}
	}
	for v := math.Ceil(a.low/step) * step; v <= a.high+step/1e6; v += step {
		all = append(all, math.Round(v/step)*step)
	}
	return all
}

func (a axis) decades() (all []float64) {
	for v := math.Pow(10, math.Ceil(math.Log10(math.Max(-a.low, a.threshold)))); v >= a.threshold*0.99; v /= 10 {
		if -v >= a.low {
			all = append(all, -v)
		}
	}
	if a.low <= 0 {
		all = append(all, 0)
	}
	for v := a.threshold; v <= a.high; v *= 10 {
		if v >= a.low {
			all = append(all, v)
		}
	}
	return all
}

// times draws the axis of time below a box.
func (c *canvas) times(b box, over Span) axis {
	x := axis{low: second(over.From), high: second(over.To), from: b.x, to: b.x + b.w}
	step := 1.0
	for _, s := range []float64{1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 43200, 86400} {
		if step = s; over.seconds()/s <= b.w/90 {
			break
		}
	}
	form := "15:04"
	if step < 60 {
		form = "15:04:05"
	}
	for t := math.Ceil(x.low/step) * step; t <= x.high; t += step {
		c.add(`<path d="M%.1f %.1fV%.1f" stroke="%s"/>`, x.at(t), b.y, b.y+b.h, ruler)
		if at := x.at(t); at > b.x+20 && at < b.x+b.w-20 {
			c.text(at, b.y+b.h+14, 11, faint, "middle", timeOf(t).Format(form))
		}
	}
	return x
}
