package deadletters

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/morphogenetic/oona"
)

// Place is where a record is, or was.
type Place struct {
	Topic       string
	Partition   int32
	Incarnation oona.Incarnation // incarnation of the partition's log; 0 in topics without incarnations
	Offset      int64
}

// String returns TOPIC/PARTITION/INCARNATION/OFFSET.
func (p Place) String() string {
	return fmt.Sprintf("%s/%d/%d/%d", p.Topic, p.Partition, p.Incarnation, p.Offset)
}

// Short returns TOPIC/PARTITION/OFFSET.
func (p Place) Short() string { return fmt.Sprintf("%s/%d/%d", p.Topic, p.Partition, p.Offset) }

// ParsePlace parses TOPIC/PARTITION/INCARNATION/OFFSET. If the incarnation is left out, it
// is 0.
func ParsePlace(text string) (Place, error) {
	parts := strings.Split(text, "/")
	wrong := &oona.FieldError{Field: "place", Reason: fmt.Sprintf("is %.300q; give TOPIC/PARTITION/OFFSET of a side topic, as list prints it, or TOPIC/PARTITION/INCARNATION/OFFSET of where the record was before", text)}
	if len(parts) < 3 || len(parts) > 4 || parts[0] == "" {
		return Place{}, wrong
	}
	partition, err := strconv.ParseUint(parts[1], 10, 31)
	offset, err2 := strconv.ParseUint(parts[len(parts)-1], 10, 63)
	if err != nil || err2 != nil {
		return Place{}, wrong
	}
	p := Place{Topic: parts[0], Partition: int32(partition), Offset: int64(offset)}
	if len(parts) == 4 {
		n, err := strconv.ParseUint(parts[2], 10, 63)
		if err != nil {
			return Place{}, wrong
		}
		p.Incarnation = oona.Incarnation(n)
	}
	return p, nil
}
