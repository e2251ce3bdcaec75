// Package whatif folds the frames of a log with other windows than those in the log's configuration
// records: with another length, lateness, catalogue or limit, or with hopping windows or sessions.
// Its rollups differ from those of the log, and never go to the log's own topics.
//
//	Log ──▶ Fold ──┬─▶ windows.Engine   tumbling windows
//	               └─▶ Engine           hopping windows and sessions
//
// All results depend only on the records and the settings.
package whatif
