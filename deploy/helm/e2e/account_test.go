package e2e

import (
	"testing"

	"github.com/morphogenetic/oona"
)

// The reconciliation can fail: each error in an account is noticed.
func TestAccountNoticesErrors(t *testing.T) {
	for name, spoil := range map[string]func(*account){
		"":                                   func(*account) {},
		"a frame that was not sent":          func(a *account) { a.frames[frameID{"p", 1, 3}] = true },
		"a frame is missing":                 func(a *account) { delete(a.frames, frameID{"p", 1, 2}) },
		"a frame is folded twice":            func(a *account) { a.rollupFrames[oona.Health]++ },
		"a frame is not folded":              func(a *account) { a.rollupFrames[oona.Performance]-- },
		"a frame is late":                    func(a *account) { a.aside["late"]++; a.records++ },
		"a repeat is not counted":            func(a *account) { a.rollupDups-- },
		"a record is neither folded nor not": func(a *account) { a.records++ },
	} {
		a := &account{
			records:      3,
			aside:        make(map[string]int),
			frames:       map[frameID]bool{{"p", 1, 1}: true, {"p", 1, 2}: true},
			folded:       map[frameID]bool{{"p", 1, 1}: true, {"p", 1, 2}: true},
			repeats:      1,
			rollupDups:   1,
			rollupFrames: map[oona.Group]int64{oona.Health: 2, oona.Performance: 2},
		}
		spoil(a)
		if err := a.check("run", 2); (err == nil) != (name == "") {
			t.Errorf("%s: %v", name, err)
		}
	}
}
