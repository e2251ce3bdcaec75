package forward

import (
	"errors"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/morphogenetic/oona/spool"
)

func (f *Forwarder) register(registerer prometheus.Registerer) error {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: "oona_ingest_spool_" + name, Help: help})
	}
	f.spooledFrames = counter("frames_total", "Frames and events that were written to the spool, because the bus did not accept them or because earlier ones of the same run and topic were waiting.")
	f.sentFrames = counter("sent_frames_total", "Frames and events from the spool that the bus has acknowledged.")
	f.setAside = counter("set_aside_total", "Requests in the spool that can never be sent. They are kept in files quarantine-record-... in its directory.")
	f.lapsed = counter("stale_frames_total", "Frames from the spool that were recent enough when they were accepted, but too old when they were sent. The aggregator puts them aside.")
	of := func(name, help string, value func(spool.Stats) int64) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "oona_ingest_spool_" + name, Help: help},
			func() float64 { return float64(value(f.spool.Stats())) })
	}
	since := func(name, help string, value func(spool.Stats) int64) prometheus.Collector {
		return prometheus.NewCounterFunc(prometheus.CounterOpts{Name: "oona_ingest_spool_" + name, Help: help},
			func() float64 { return float64(value(f.spool.Stats())) })
	}
	var errs error
	for _, c := range []prometheus.Collector{
		f.spooledFrames, f.sentFrames, f.setAside, f.lapsed,
		of("records", "Requests that are waiting in the spool.", func(s spool.Stats) int64 { return s.Records }),
		of("bytes", "Size of the spool's files, including files quarantine-...", func(s spool.Stats) int64 { return s.Bytes }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "oona_ingest_spool_max_bytes", Help: "Maximum size of the spool's files: --spool-bytes, or less if the file system has less space besides --spool-headroom. When it is reached, requests are answered with 503 while the bus is unavailable."},
			func() float64 { return float64(f.spool.Limit()) }),
		of("quarantine_bytes", "Size of the files quarantine-... of the spool, which have damaged bytes or requests that could not be sent. They count towards --spool-bytes until somebody deletes them.", func(s spool.Stats) int64 { return s.Kept }),
		since("refused_total", "Requests that were refused because the spool was full.", func(s spool.Stats) int64 { return s.Refused }),
		since("write_failures_total", "Requests that could not be written to the spool.", func(s spool.Stats) int64 { return s.Failed }),
		since("lost_records_total", "Requests that were lost in damaged parts of the spool's files. The damaged bytes are kept in files quarantine-... in its directory.", func(s spool.Stats) int64 { return s.Lost }),
		since("torn_bytes_total", "Bytes after the last valid request in the newest file of the spool, from an unfinished write or from damage. They are found when ingest starts, and are not used.", func(s spool.Stats) int64 { return s.Torn }),
		since("damaged_ends_total", "Times that the damaged end of the newest file of the spool may have been an acknowledged request. The bytes are kept in files quarantine-... in its directory.", func(s spool.Stats) int64 { return s.DamagedEnds }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "oona_ingest_spool_oldest_seconds", Help: "How long the oldest request in the spool has been waiting; 0 if the spool is empty."}, f.age),
	} {
		errs = errors.Join(errs, registerer.Register(c))
	}
	return errs
}

// age returns for how many seconds the oldest record that is being sent has been in the spool.
func (f *Forwarder) age() (oldest float64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, l := range f.lanes {
		if at := l.oldest.Load(); at != 0 {
			oldest = max(oldest, time.Since(time.UnixMicro(at)).Seconds())
		}
	}
	return oldest
}
