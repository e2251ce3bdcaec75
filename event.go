package oona

// SeedEvent records one lifecycle transition of a seed.
type SeedEvent struct {
	Run      RunID
	Layer    LayerID
	Seed     SeedID
	Sequence int64 // counts the seed's own events, so that its trail can be ordered across topics
	At       Micros
	Step     int64
	From, To State
	Reason   string             // the criterion, in words
	Evidence map[string]float64 // what was measured when it was met
}
