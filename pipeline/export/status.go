package export

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/munnerz/goautoneg"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/rollups"
)

// StatusPath is the path of Stage.Status.
const StatusPath = "/v1/status"

// StatusSays describes the page at StatusPath.
const StatusSays = "with ?run=RUN, what became of the frames of a run recently"

// statusRequests is how many requests may read the side topics at the same time.
const statusRequests = 2

// recentWindows is how many closed windows of a layer a status shows.
const recentWindows = 5

// windowCounts is what a status shows of a closed window.
type windowCounts struct {
	Timeline   oona.TimelineID `json:"timeline,omitempty"`
	Start      time.Time       `json:"start"`
	End        time.Time       `json:"end"`
	Frames     int64           `json:"frames"`
	Readings   int64           `json:"readings"`
	Duplicates int64           `json:"duplicates"`
	EmittedAt  time.Time       `json:"emitted_at"`
	Delay      float64         `json:"delay_seconds"` // from the end of the window until its rollup was on the bus
}

func countsOf(r *oona.Rollup, appended time.Time) windowCounts {
	return windowCounts{
		Timeline: r.Timeline, Start: r.Start.Time(), End: r.End.Time(),
		Frames: r.Frames, Readings: r.Readings, Duplicates: r.Duplicates,
		EmittedAt: appended.UTC(), Delay: appended.Sub(r.End.Time()).Seconds(),
	}
}

// runStatus says what became of the frames of a run recently.
type runStatus struct {
	Run        oona.RunID    `json:"run"`
	State      string        `json:"state"`
	Ended      *runEnd       `json:"ended,omitempty"` // if State is stateEnded
	LastRollup *time.Time    `json:"last_rollup,omitempty"`
	LastWindow *time.Time    `json:"last_window,omitempty"` // end of the latest window of which a rollup was read
	Notes      []string      `json:"notes,omitempty"`       // what the author of the trainer should know first
	Layers     []layerStatus `json:"layers"`
	Aside      []asideGroup  `json:"aside"`
	// Since is how far back the side topics were read. If Complete is false, not all
	// records since then were read: there may be more.
	Since    time.Time `json:"since"`
	Complete bool      `json:"complete"`
	// UnknownRun is how many records were put aside since then whose run is not known,
	// as they cannot be decoded.
	UnknownRun int      `json:"unknown_run,omitempty"`
	Problems   []string `json:"problems,omitempty"`
}

type layerStatus struct {
	Layer   oona.LayerID   `json:"layer"`
	Windows []windowCounts `json:"windows"` // earliest first
}

// statusProblem is the answer to a request that cannot be answered (RFC 9457).
type statusProblem struct {
	Type   string       `json:"type"`
	Title  string       `json:"title"`
	Status int          `json:"status"`
	Detail string       `json:"detail"`
	Runs   []oona.RunID `json:"runs,omitempty"` // that are known
	// Complete is that of a status. It is nil if the side topics were not read.
	Complete *bool `json:"complete,omitempty"`
}

// Status serves GET /v1/status?run=RUN. It reads the side topics only while it answers.
func (s *Stage) Status(from Sides) http.Handler {
	slots := make(chan struct{}, statusRequests)
	reader := &sideReader{from: from, topics: s.cfg.Topics}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		id, err := runOf(r)
		if err != nil {
			known := s.store.knownRuns(time.Now())
			s.refuseStatus(w, statusProblem{Status: http.StatusBadRequest, Type: "run", Title: "The run is not valid", Detail: err.Error() + "; ask for " + StatusPath + "?run=RUN", Runs: known})
			return
		}
		select {
		case slots <- struct{}{}:
			defer func() { <-slots }()
		default:
			w.Header().Set("Retry-After", "1")
			s.refuseStatus(w, statusProblem{Status: http.StatusTooManyRequests, Type: "overloaded", Title: "Too many requests", Detail: "others are asking for the status of runs; ask again later"})
			return
		}
		now := time.Now()
		status := s.store.status(oona.RunID(id), now)
		aside := reader.read(r.Context(), status.Run, now)
		status.Aside = append(status.Aside, aside.groups...) // an empty list in JSON, not null, if there are none
		status.Complete, status.UnknownRun, status.Problems = aside.complete, aside.unknown, aside.problems
		if err := s.Ready(); err != nil {
			status.Problems = append(status.Problems, "not all rollups are read yet: "+err.Error())
		}
		status.note(s.cfg.SilentAfter, now)
		if status.State == stateNone && len(status.Aside) == 0 {
			s.refuseUnknown(w, status, aside.runs, now)
			return
		}
		s.metrics.statusTotal.WithLabelValues(strconv.Itoa(http.StatusOK)).Inc()
		writeStatus(w, r, status)
	})
}

// runOf returns the run that a request asks for.
func runOf(r *http.Request) (string, error) {
	query, err := url.ParseQuery(r.URL.RawQuery)
	switch runs := query["run"]; {
	case err != nil:
		return "", fmt.Errorf("the query cannot be read: %w", err)
	case len(runs) > 1:
		return "", &oona.FieldError{Field: "run", Reason: "is given more than once"}
	}
	return query.Get("run"), oona.CheckID("run", query.Get("run"))
}

// refuseUnknown answers a request for a run of which nothing was found.
func (s *Stage) refuseUnknown(w http.ResponseWriter, of runStatus, others []oona.RunID, now time.Time) {
	known := append(s.store.knownRuns(now), others...)
	slices.Sort(known)
	known = slices.Compact(known)
	if len(of.Problems) > 0 {
		w.Header().Set("Retry-After", "5")
		s.refuseStatus(w, statusProblem{Status: http.StatusServiceUnavailable, Type: "unavailable", Title: "Whether there is such a run is not known",
			Detail: "nothing is known of the run " + string(of.Run) + ", but " + strings.Join(of.Problems, "; "), Runs: known, Complete: &of.Complete})
		return
	}
	aside := "none of its records was put aside within the last hour"
	if !of.Complete {
		aside = "none of its records is among the newest that were put aside; there are more within the last hour, which were not read"
	}
	detail := "no window of the run " + string(of.Run) + " was read, and " + aside + ". Check its name, and that its frames are sent to this installation. A window closes only some seconds after its end, and the aggregators may be behind"
	if len(known) >= s.cfg.MaxRuns {
		detail += ". The exporter keeps at most " + strconv.Itoa(s.cfg.MaxRuns) + " runs (--series-max-runs), so it may not have kept this one"
	}
	s.refuseStatus(w, statusProblem{Status: http.StatusNotFound, Type: "unknown-run", Title: "The run is not known", Detail: detail, Runs: known, Complete: &of.Complete})
}

func (s *Stage) refuseStatus(w http.ResponseWriter, p statusProblem) {
	s.metrics.statusTotal.WithLabelValues(strconv.Itoa(p.Status)).Inc()
	w.Header().Set("Content-Type", "application/problem+json")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(p.Status)
	p.Type = "urn:oona:problem:" + p.Type
	_ = json.NewEncoder(w).Encode(p) // the client may be gone
}

// writeStatus writes JSON, unless the client prefers text.
func writeStatus(w http.ResponseWriter, r *http.Request, status runStatus) {
	const asJSON, asText = "application/json", "text/plain"
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("Vary", "Accept")
	if accept := r.Header.Get("Accept"); accept != "" && goautoneg.Negotiate(accept, []string{asJSON, asText}) == asText {
		w.Header().Set("Content-Type", asText+"; charset=utf-8")
		writeStatusText(w, &status)
		return
	}
	w.Header().Set("Content-Type", asJSON)
	_ = json.NewEncoder(w).Encode(status) // the client may be gone
}

// States of a run.
const (
	stateLive   = "live"
	stateBehind = "behind" // rollups come, but of windows that ended so long ago that no layer is shown
	stateSilent = "silent"
	stateEnded  = "ended" // its trainer said so, and no later window of it was read
	stateNone   = "none"  // no window of it was read
)

// status returns the status of a run according to its rollups and its end.
func (l *store) status(id oona.RunID, now time.Time) runStatus {
	out := runStatus{Run: id, State: stateNone, Layers: []layerStatus{}, Aside: []asideGroup{}, Since: now.Add(-sidesSince).UTC()}
	l.mu.Lock()
	defer l.mu.Unlock()
	var latest oona.Micros // start of the latest window
	for _, r := range l.snapshotRuns(now) {
		if r.id != id {
			continue
		}
		heard, end := r.heard.UTC(), r.end.Time().UTC()
		out.State, out.LastRollup, out.LastWindow = stateSilent, &heard, &end
		switch {
		case r.live && now.Sub(end) > l.cfg.SilentAfter:
			out.State = stateBehind
		case r.live:
			out.State = stateLive
		}
		latest = r.start
	}
	if out.Ended = l.ends.after(id, latest); out.Ended != nil {
		out.State = stateEnded
	}
	for y := range l.layers.All(now) {
		if y.Run == id && !y.Merged {
			out.Layers = append(out.Layers, layerStatus{y.ID, countsIn(y)})
		}
	}
	slices.SortFunc(out.Layers, func(a, b layerStatus) int { return strings.Compare(string(a.Layer), string(b.Layer)) })
	return out
}

// note adds notes about facts that are easily overlooked: that the rollups are of old windows, and
// that most of the frames are in no rollup.
func (s *runStatus) note(silentAfter time.Duration, now time.Time) {
	switch {
	case s.State == stateBehind:
		s.Notes = append(s.Notes, fmt.Sprintf("rollups of this run come, but the latest window of them ended %s ago. A layer is shown for %s after its latest window has ended (--series-silent-after), so none is. Check the trainer's clock and the unit of observed_at; if the frames are really that old, their rollups are on the bus all the same (oona watch)",
			now.Sub(*s.LastWindow).Round(time.Second), silentAfter))
	case s.State == stateLive && len(s.Layers) == 0:
		s.Notes = append(s.Notes, "rollups of this run come, but none of its layers is shown by itself, as there are too many (--series-max-layers, --series-max-total-layers)")
	}
	var frames, aside int64
	for _, y := range s.Layers {
		for _, w := range y.Windows {
			frames += w.Frames
		}
	}
	for _, g := range s.Aside {
		aside += int64(g.Records)
	}
	if aside > frames {
		s.Notes = append(s.Notes, fmt.Sprintf("more of its records were put aside since %s than there are frames in the windows shown: %d, and %d. What was put aside is in no rollup; the reasons are below", stamp(s.Since), aside, frames))
	}
}

func countsIn(y *rollups.Layer[layer]) []windowCounts {
	all := []windowCounts{}
	for _, w := range y.Value.recent.All() {
		all = append(all, w)
	}
	return all
}

// knownRuns returns the runs that are kept, in order.
func (l *store) knownRuns(now time.Time) (all []oona.RunID) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, r := range l.snapshotRuns(now) {
		all = append(all, r.id)
	}
	slices.Sort(all)
	return all
}
