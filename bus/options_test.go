package bus_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/bus"
)

func TestOptions(t *testing.T) {
	for _, tt := range []struct {
		options interface{ Validate() error }
		field   string // empty: they are right
	}{
		{bus.PublisherOptions{}, ""},
		{bus.RollupOptions(), ""},
		{bus.PublisherOptions{BatchBytes: -1}, "BatchBytes"},
		{bus.PublisherOptions{Compression: "zip"}, "Compression"},
		{bus.PublisherOptions{MaxMessageBytes: 10}, "MaxMessageBytes"},
		{bus.PublisherOptions{DeliveryTimeout: -1}, "DeliveryTimeout"},
		{bus.MemberOptions{}, "Group"},
		{bus.MemberOptions{Group: "g"}, ""},
		{bus.MemberOptions{Group: "g", ReadAhead: bus.MaxReadAhead + 1}, "ReadAhead"},
		{bus.MemberOptions{Group: "g", ReadAheadAll: -1}, "ReadAheadAll"},
		{bus.MemberOptions{Group: "g", Instance: "aggregate-0"}, ""},
		{bus.MemberOptions{Group: "g", Instance: "a b"}, "Instance"},
		{bus.MemberOptions{Group: "g", Instance: ".."}, "Instance"},
		{bus.MemberOptions{Group: "g", Instance: strings.Repeat("x", 250)}, "Instance"},
	} {
		var wrong *oona.FieldError
		err := tt.options.Validate()
		if errors.As(err, &wrong); (err == nil) != (tt.field == "") || wrong != nil && wrong.Field != tt.field {
			t.Errorf("%+v: %v, want an error of field %q", tt.options, err, tt.field)
		}
	}
}

func TestPublishError(t *testing.T) {
	again := errors.New("again")
	err := error(&bus.PublishError{Topic: "t", Messages: 3, Failed: []bus.FailedMessage{{0, again}, {1, again}, {2, bus.ErrTooLarge}}})
	if !errors.Is(err, again) || !errors.Is(err, bus.ErrTooLarge) || errors.Is(err, bus.ErrClosed) {
		t.Errorf("%v", err)
	}
	if causes := err.(interface{ Unwrap() []error }).Unwrap(); len(causes) != 2 {
		t.Errorf("the causes are %v", causes)
	}
}
