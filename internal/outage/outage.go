// Package outage says when a failure that lasts is logged: when it begins, when its reason
// changes, and every ten minutes in between. So the log shows it, and is not full of it.
package outage

import "time"

// Again is the time between two log lines about the same failure.
const Again = 10 * time.Minute

// Outage is a failure that may last. The zero value is none. It is not safe for concurrent use.
type Outage struct {
	lasts   bool
	reason  string
	next    time.Time // of the next log line
	skipped int       // failures since the last one that was logged
}

// Fails records a failure. It reports whether the failure is to be logged, and how many were not
// logged since the last one that was.
func (o *Outage) Fails(reason string, now time.Time) (skipped int, say bool) {
	if o.lasts && reason == o.reason && now.Before(o.next) {
		o.skipped++
		return 0, false
	}
	skipped = o.skipped
	*o = Outage{lasts: true, reason: reason, next: now.Add(Again)}
	return skipped, true
}

// Ends records that it works, and reports whether it had failed.
func (o *Outage) Ends() (lasted bool) {
	lasted = o.lasts
	*o = Outage{}
	return lasted
}
