package export

import (
	"container/list"
	"slices"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/verdict"
)

// maxReasons is how many reasons of a layer are shown, the worst first.
const maxReasons = 5

// judges has the judges of layers. It keeps those of layers that are shown, and those of
// the limit layers that were observed or shown last: a layer that comes back is compared
// with what it was, and an exporter that starts judges windows which are too old to be
// shown.
type judges struct {
	rule   func(metric string) verdict.Rule
	limit  int
	runs   map[oona.RunID]*verdict.Run
	hidden *list.List               // of judged: layers that are not shown, the latest first
	all    map[judged]*list.Element // the element of hidden; nil if the layer is shown
}

// judged is a layer that has a judge.
type judged struct {
	run   oona.RunID
	layer oona.LayerID
}

func newJudges(rule func(metric string) verdict.Rule, limit int) *judges {
	return &judges{rule: rule, limit: limit, runs: make(map[oona.RunID]*verdict.Run), hidden: list.New(), all: make(map[judged]*list.Element)}
}

// observe judges a rollup of a layer, which is shown or not. It returns the level of the
// layer without regard to others.
func (l *judges) observe(r *oona.Rollup, shown bool) verdict.Level {
	id := judged{r.Run, r.Layer}
	if e := l.all[id]; e != nil {
		l.hidden.Remove(e)
	}
	l.all[id] = nil
	run := l.runs[r.Run]
	if run == nil {
		run = verdict.NewRun(l.rule)
		l.runs[r.Run] = run
	}
	run.Observe(r)
	v, _ := run.At(r.Layer, 0)
	if !shown {
		l.hide(r.Run, r.Layer)
	}
	return v.Level
}

// hide says that a layer is not shown any more.
func (l *judges) hide(run oona.RunID, layer oona.LayerID) {
	id := judged{run, layer}
	if e, known := l.all[id]; !known || e != nil {
		return
	}
	if l.hidden.Len() >= l.limit {
		l.forget(l.hidden.Back().Value.(judged))
	}
	l.all[id] = l.hidden.PushFront(id)
}

func (l *judges) forget(id judged) {
	if e := l.all[id]; e != nil {
		l.hidden.Remove(e)
	}
	delete(l.all, id)
	run := l.runs[id.run]
	if run.Forget(id.layer); run.Len() == 0 {
		delete(l.runs, id.run)
	}
}

// forgetRun forgets the layers of a run.
func (l *judges) forgetRun(run oona.RunID) {
	for id := range l.all {
		if id.run == run {
			l.forget(id)
		}
	}
}

// judgement has the shown values of a layer's verdict.
type judgement struct {
	verdict.Verdict
	metrics []verdict.Metric // metrics whose expected range is shown
}

// snapshot returns the judgement of a layer, or nil if there is none yet. It has the expected ranges
// of the metrics for which always returns true, and of metrics that are a reason. If the run has ended,
// no layer of it is stalled: the last window of a layer may be earlier than those of the others.
func (l *judges) snapshot(run oona.RunID, layer oona.LayerID, ended bool, always func(metric string) bool) *judgement {
	of := l.runs[run]
	if of == nil {
		return nil
	}
	now := of.Now()
	if ended {
		now = 0
	}
	v, known := of.At(layer, now)
	if !known || v.Learning {
		return nil
	}
	j := &judgement{Verdict: v}
	for m := range of.Judge(layer).Metrics() {
		if always(m.Name) || slices.ContainsFunc(v.Reasons, func(r verdict.Reason) bool { return r.Metric == m.Name }) {
			j.metrics = append(j.metrics, m)
		}
	}
	return j
}
