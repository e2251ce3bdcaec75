// Package deadletters finds the records of the side topics (late, quarantine, overflow
// and dead letters), sends them again, and marks those that nobody needs.
//
//	side topics ──▶ Letters ──▶ Selection ──▶ Repair ──▶ checks of the raw topic ──▶ seed-metrics
//	                                                             │         pending ──▶ send ──▶ done
//	                                                             └──▶ Ledger (the topic of redrives)
//
// A letter is identified by the place where its record was before it went to the side topic. A
// side topic may have the same letter several times, because writers repeat messages that were
// not acknowledged. The Ledger has the outcome for each place. It is written before a letter is
// sent (pending, with the repaired frames) and after (done). So if a redrive is interrupted, the
// next one sends the same frames again, and the window engine folds each of them once.
package deadletters
