package secret

import "time"

// A certificate expires soon if less than this time is left, or less than this part of its
// lifetime: a certificate that lives for a day is renewed late on its last day.
const (
	expiresSoon = 14 * 24 * time.Hour
	lastPart    = 4
	warnEvery   = 24 * time.Hour
)

// lifetime is from when to when a certificate is valid.
type lifetime struct {
	start, end time.Time
	warned     time.Time // the last warning; zero if there was none
}

// ExpiresSoon reports whether a certificate that is valid from start to end expires within
// 14 days, or is in the last quarter of its lifetime if that is shorter.
func ExpiresSoon(start, end, now time.Time) bool {
	return end.Sub(now) < min(expiresSoon, end.Sub(start)/lastPart)
}

// Valid notes from when to when a certificate of this process is valid, for the metrics and
// for a warning each day before it expires. setting is the flag that names its file. At the
// start, the owner of the flag warns.
func (f *Files) Valid(setting string, start, end time.Time) {
	if f == nil {
		return
	}
	f.start.WithLabelValues(setting).Set(float64(start.Unix()))
	f.expiry.WithLabelValues(setting).Set(float64(end.Unix()))
	f.mu.Lock()
	defer f.mu.Unlock()
	l := &lifetime{start: start, end: end}
	if f.certificates[setting] == nil {
		l.warned = f.now()
	}
	f.certificates[setting] = l
}

// warnOfExpiry logs which certificates expire soon, each once a day.
func (f *Files) warnOfExpiry() {
	f.mu.Lock()
	defer f.mu.Unlock()
	now := f.now()
	for setting, l := range f.certificates {
		if !ExpiresSoon(l.start, l.end, now) || now.Sub(l.warned) < warnEvery {
			continue
		}
		l.warned = now
		text := "a certificate expires soon; write a new one and its key to the same files"
		if !l.end.After(now) {
			text = "a certificate has expired; write a new one and its key to the same files"
		}
		f.logger.Warn(text, "setting", setting, "expires", l.end.UTC())
	}
}
