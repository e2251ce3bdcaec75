package draw

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// unit returns a value as Grafana shows it, nearly. at is the time to which a time is
// compared, in seconds.
func unit(v float64, name string, at float64) string {
	switch {
	case math.IsNaN(v):
		return "NaN"
	case math.IsInf(v, 0):
		return strings.Replace(fmt.Sprint(v), "Inf", "∞", 1)
	}
	switch name {
	case "percentunit":
		return short(100*v) + "%"
	case "s":
		return duration(v)
	case "dateTimeFromNow":
		return ago(at - v/1e3)
	case "bytes":
		return scaled(v, 1024, " B", " KiB", " MiB", " GiB", " TiB")
	case "Bps":
		return scaled(v, 1000, " B/s", " kB/s", " MB/s", " GB/s")
	case "reqps":
		return short(v) + " req/s"
	case "none":
		return short(v)
	default:
		return scaled(v, 1000, "", " K", " Mil", " Bil")
	}
}

// short returns at most three significant digits, but no digit of an integer is left out.
func short(v float64) string {
	if v == math.Trunc(v) && math.Abs(v) < 1e9 {
		return strconv.FormatFloat(v, 'f', 0, 64)
	}
	if a := math.Abs(v); a >= 100 && a < 1e6 {
		return strconv.FormatFloat(v, 'f', 0, 64)
	}
	return strconv.FormatFloat(v, 'g', 3, 64)
}

func scaled(v, factor float64, names ...string) string {
	i := 0
	for math.Abs(v) >= factor && i < len(names)-1 {
		v /= factor
		i++
	}
	return short(v) + names[i]
}

func duration(v float64) string {
	switch a := math.Abs(v); {
	case v == 0:
		return "0 s"
	case a < 1e-3:
		return short(v*1e6) + " µs"
	case a < 1:
		return short(v*1e3) + " ms"
	case a < 120:
		return short(v) + " s"
	case a < 7200:
		return short(v/60) + " min"
	case a < 172_800:
		return short(v/3600) + " hours"
	default:
		return short(v/86_400) + " days"
	}
}

// ago is a time as Grafana shows it.
func ago(seconds float64) string {
	ahead := seconds < 0
	text := ""
	switch a := math.Abs(seconds); {
	case a < 45:
		text = fmt.Sprintf("%d seconds", int(math.Round(a)))
	case a < 90:
		text = "a minute"
	case a < 3600:
		text = fmt.Sprintf("%d minutes", int(math.Round(a/60)))
	case a < 172_800:
		text = fmt.Sprintf("%d hours", int(math.Round(a/3600)))
	default:
		text = fmt.Sprintf("%d days", int(math.Round(a/86_400)))
	}
	if ahead {
		return "in " + text
	}
	return text + " ago"
}
