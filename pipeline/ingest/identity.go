package ingest

import (
	"log/slog"
	"net/http"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/intake"
	"github.com/morphogenetic/oona/internal/access"
)

// identify returns who sends a request, or nil if everyone may send everything.
func (s *Stage) identify(w http.ResponseWriter, r *http.Request) (*access.Identity, *intake.Refusal) {
	if s.cfg.Access == nil {
		return nil, nil
	}
	who, err := s.cfg.Access.Identify(r)
	if err != nil {
		w.Header().Set("WWW-Authenticate", access.Challenge(err))
		return nil, intake.Refuse(reasonUnknown, "%v", err)
	}
	return who, nil
}

// identityOf returns the name of a client for the log, or nothing if the client is not known.
func identityOf(who *access.Identity) slog.Attr {
	if who == nil {
		return slog.Attr{}
	}
	return slog.String("identity", who.Name)
}

// lacks refuses a client without a role.
func lacks(who *access.Identity, role access.Role) *intake.Refusal {
	if who == nil || who.Has(role) {
		return nil
	}
	return intake.Refuse(reasonForbidden, "the identity %s does not have the role %s, which this request needs; the operator can give it the role (--listen-access-file)", who.Name, role)
}

// permit returns a function that refuses frames of runs and producers that the client may not send.
func permit(who *access.Identity) func(*oona.Frame) *intake.Refusal {
	if who == nil {
		return nil
	}
	return func(f *oona.Frame) *intake.Refusal { return foreign(who, f.Run, f.Producer) }
}

// permitEvent is like permit, for events. They need not name a producer.
func permitEvent(who *access.Identity) func(oona.RunID, oona.ProducerID) *intake.Refusal {
	if who == nil {
		return nil
	}
	return func(run oona.RunID, producer oona.ProducerID) *intake.Refusal { return foreign(who, run, producer) }
}

// foreign refuses a run or a producer for which the client may not send data.
func foreign(who *access.Identity, run oona.RunID, producer oona.ProducerID) *intake.Refusal {
	field, value := "run_id", string(run)
	if who.Run(value) {
		field, value = "producer_id", string(producer)
		if value == "" || who.Producer(value) {
			return nil
		}
	}
	refused := intake.Refuse(reasonForbidden, "%s is %s, and the identity %s may not send data for it (--listen-access-file); the whole request was refused", field, value, who.Name)
	refused.Field = field
	return refused
}
