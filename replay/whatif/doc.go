// Package whatif folds the frames of a log with other windows than those that the log's
// configuration records say: another length, lateness, catalogue or limit, hopping windows,
// and sessions. Its rollups are not those of the log, and never go to the log's own topics.
//
//	Log ──▶ Fold ──┬─▶ windows.Engine   tumbling windows
//	               └─▶ Engine           hopping windows and sessions
//
// Everything here is a function of the records and of the settings.
package whatif
