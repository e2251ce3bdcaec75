package intake

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/morphogenetic/oona"
)

// jsonReader reads JSON that json.Valid has accepted, so it does not check the syntax again.
// It reads each byte once, and allocates only for errors and escaped strings. Its errors are
// *oona.FieldError, with fields relative to the value that is read.
type jsonReader struct {
	data []byte
	at   int
}

// next skips white space and returns the byte after it, or 0 at the end.
func (r *jsonReader) next() byte {
	for r.at < len(r.data) {
		switch c := r.data[r.at]; c {
		case ' ', '\t', '\n', '\r':
			r.at++
		default:
			return c
		}
	}
	return 0
}

// kind returns the kind of the next value, for use in errors.
func (r *jsonReader) kind() string {
	switch r.next() {
	case '{':
		return "an object"
	case '[':
		return "an array"
	case '"':
		return "a string"
	case 't', 'f':
		return "a boolean"
	case 'n':
		return "null"
	}
	return "a number"
}

func (r *jsonReader) mismatch(want string) error {
	return &oona.FieldError{Reason: fmt.Sprintf("is %s, not %s", r.kind(), want)}
}

// entries reads an array as array does. name is its name in the schema. If the array has more
// elements than limit, entries stops there, because a client needs only two bytes for each
// element. The error also wraps oona.ErrTooLarge.
func (r *jsonReader) entries(name string, limit int, each func() error) error {
	full := false
	err := r.array(func(i int) error {
		if full = i == limit; full {
			return errRefused
		}
		return each()
	})
	if full {
		return fmt.Errorf("%w: %w", &oona.FieldError{Reason: oona.TooMany(name, limit)}, oona.ErrTooLarge)
	}
	return err
}

// array calls each for every element. each must read the element.
func (r *jsonReader) array(each func(i int) error) error {
	if r.next() != '[' {
		return r.mismatch("an array")
	}
	r.at++
	for i := 0; r.next() != ']'; i++ {
		if r.next() == ',' {
			r.at++
		}
		if err := each(i); err != nil {
			return within(err, "["+strconv.Itoa(i)+"]")
		}
	}
	r.at++
	return nil
}

// jsonField is a member of the JSON object that describes a T. read must read its value.
type jsonField[T any] struct {
	name     string
	optional bool
	read     func(d *jsonDecoder, to *T) error
}

// readObject reads an object. Unknown and repeated names are errors, and so are missing
// members that are not optional.
func readObject[T any](d *jsonDecoder, what string, fields []jsonField[T], to *T) error {
	if d.next() != '{' {
		return d.mismatch(what)
	}
	d.at++
	var seen uint32
	for d.next() != '}' {
		if d.next() == ',' {
			d.at++
		}
		key, err := d.text()
		if err != nil {
			return err
		}
		i := slices.IndexFunc(fields, func(f jsonField[T]) bool { return f.name == string(key) })
		if i < 0 {
			return &oona.FieldError{Field: unknownName(key), Reason: fmt.Sprintf("is not known; %s has %s", what, fieldNames(fields))}
		}
		if seen&(1<<i) != 0 {
			return &oona.FieldError{Field: fields[i].name, Reason: "is given twice"}
		}
		seen |= 1 << i
		d.next()
		d.at++ // skip the colon
		if err := fields[i].read(d, to); err != nil {
			return within(err, fields[i].name)
		}
	}
	d.at++
	for i, field := range fields {
		if !field.optional && seen&(1<<i) == 0 {
			return &oona.FieldError{Field: field.name, Reason: "is missing"}
		}
	}
	return nil
}

// unknownName returns a client's key in the form of a field.
func unknownName(key []byte) string {
	if name := clip(key); oona.CheckID("", name) == nil {
		return name
	}
	return strconv.Quote(clip(key))
}

func fieldNames[T any](fields []jsonField[T]) string {
	names := make([]string, len(fields))
	for i, field := range fields {
		names[i] = field.name
	}
	return strings.Join(names, ", ")
}

// within puts the name of the enclosing value before the field of an error.
func within(err error, place string) error {
	var wrong *oona.FieldError
	if !errors.As(err, &wrong) {
		return err
	}
	if wrong.Field != "" && wrong.Field[0] != '[' {
		place += "."
	}
	wrong.Field = place + wrong.Field
	return err
}

// text reads a string. If nothing is escaped, the result is a part of the data.
func (r *jsonReader) text() ([]byte, error) {
	if r.next() != '"' {
		return nil, r.mismatch("a string")
	}
	start := r.at
	escaped := false
	for r.at++; r.data[r.at] != '"'; r.at++ {
		if r.data[r.at] == '\\' {
			escaped = true
			r.at++
		}
	}
	r.at++
	if !escaped {
		return r.data[start+1 : r.at-1], nil
	}
	var s string
	if err := json.Unmarshal(r.data[start:r.at], &s); err != nil {
		return nil, &oona.FieldError{Reason: fmt.Sprintf("is not a JSON string: %v", err)}
	}
	if half := halfSurrogate(r.data[start:r.at]); half != "" {
		return nil, &oona.FieldError{Reason: fmt.Sprintf("contains %s, which is only half of a surrogate pair; send the character as UTF-8, or escape it as both halves", half)}
	}
	return []byte(s), nil
}

// halfSurrogate returns the first escape in a JSON string that is half of a surrogate pair without the
// other half, or "". JSON allows such an escape, but UTF-8 has no such character, and Go's decoder
// silently replaces it.
func halfSurrogate(quoted []byte) string {
	for at := 0; at < len(quoted); at++ {
		if quoted[at] != '\\' {
			continue
		}
		if quoted[at+1] != 'u' {
			at++
			continue
		}
		escape := quoted[at : at+6]
		first := codeUnit(escape)
		at += 5
		if !utf16.IsSurrogate(first) {
			continue
		}
		if rest := quoted[at+1:]; len(rest) < 6 || rest[0] != '\\' || rest[1] != 'u' || utf16.DecodeRune(first, codeUnit(rest[:6])) == utf8.RuneError {
			return string(escape)
		}
		at += 6
	}
	return ""
}

// codeUnit returns the UTF-16 code unit of an escape such as \u00e9.
func codeUnit(escape []byte) rune {
	n, _ := strconv.ParseUint(string(escape[2:]), 16, 16) // json.Valid has checked the digits
	return rune(n)
}

// number reads the characters of a number.
func (r *jsonReader) number() []byte {
	r.next()
	start := r.at
	for ; r.at < len(r.data); r.at++ {
		switch c := r.data[r.at]; {
		case '0' <= c && c <= '9', c == '.', c == '-', c == 'e', c == 'E', c == '+':
		default:
			return r.data[start:r.at]
		}
	}
	return r.data[start:]
}

func (r *jsonReader) isNumber() bool {
	c := r.next()
	return c == '-' || '0' <= c && c <= '9'
}

// integer reads an integer of the given number of bits, in any notation: in JSON,
// 100000, 1e5 and 100000.0 are the same number.
func (r *jsonReader) integer(bits int) (int64, error) {
	if !r.isNumber() {
		return 0, r.mismatch("a whole number")
	}
	text := r.number()
	v, err := strconv.ParseInt(string(text), 10, bits)
	if err == nil {
		return v, nil
	}
	if digits, ok := wholeDigits(text); ok {
		v, err = strconv.ParseInt(digits, 10, bits)
	}
	if err != nil {
		return 0, &oona.FieldError{Reason: fmt.Sprintf("is %s, not a whole number of %d bits", clip(text), bits)}
	}
	return v, nil
}

// wholeDigits returns a number without fraction and exponent. It is exact, unlike a conversion
// to float64. It returns false if the number is not an integer, or has more digits than an
// int64 can have.
func wholeDigits(text []byte) (string, bool) {
	const most = 19
	exponent := 0
	mantissa, negative := bytes.CutPrefix(text, []byte{'-'})
	if at := bytes.IndexAny(mantissa, "eE"); at >= 0 {
		exponent, _ = strconv.Atoi(string(mantissa[at+1:])) // if it is out of range, this is the largest or smallest int
		mantissa = mantissa[:at]
	}
	whole, fraction, _ := bytes.Cut(mantissa, []byte{'.'})
	digits := bytes.TrimRight(slices.Concat(whole, fraction), "0")
	zeros := exponent + len(whole) - len(digits) // number of zeros after the digits
	if digits = bytes.TrimLeft(digits, "0"); len(digits) == 0 {
		return "0", true
	}
	if zeros < 0 || zeros > most || len(digits)+zeros > most {
		return "", false
	}
	number := string(digits) + strings.Repeat("0", zeros)
	if negative {
		number = "-" + number
	}
	return number, true
}

// sample reads a float32. null and "NaN" are NaN. "Infinity" and "-Infinity" are the
// infinities, which JSON cannot write as numbers. A number that fits a float64 but not a
// float32 becomes an infinity, as in other conversions: such a value has diverged, and is
// counted as diverged.
func (r *jsonReader) sample() (float32, error) {
	switch {
	case r.isNumber():
		digits := r.number()
		v, err := strconv.ParseFloat(string(digits), 32)
		if err != nil { // the number is out of range, and v is an infinity
			if _, err := strconv.ParseFloat(string(digits), 64); err != nil {
				return 0, &oona.FieldError{Reason: fmt.Sprintf("is %s, which does not fit a float64", clip(digits))}
			}
		}
		return float32(v), nil
	case r.next() == 'n':
		r.at += len("null")
		return float32(math.NaN()), nil
	case r.next() == '"':
		text, err := r.text()
		if err != nil {
			return 0, err
		}
		switch string(text) {
		case "NaN":
			return float32(math.NaN()), nil
		case "Infinity":
			return float32(math.Inf(1)), nil
		case "-Infinity":
			return float32(math.Inf(-1)), nil
		}
		return 0, &oona.FieldError{Reason: fmt.Sprintf("is %s, not a number, null, \"NaN\", \"Infinity\" or \"-Infinity\"", strconv.Quote(clip(text)))}
	}
	return 0, r.mismatch("a number or null")
}

// clip shortens a text from a client, for use in an error.
func clip(text []byte) string {
	const most = 64
	if len(text) <= most {
		return string(text)
	}
	return strings.ToValidUTF8(string(text[:most]), "") + "..."
}

// syntaxFault returns why data is not JSON, or "" if it is.
func syntaxFault(data []byte) string {
	if !utf8.Valid(data) {
		return "the body is not UTF-8"
	}
	if bytes.HasPrefix(data, []byte("\ufeff")) {
		return "the body begins with a byte order mark (ef bb bf), which JSON does not allow; send the body without it"
	}
	if json.Valid(data) {
		return ""
	}
	var ignored json.RawMessage
	err := json.Unmarshal(data, &ignored)
	syntax, ok := err.(*json.SyntaxError) //nolint:errorlint // Unmarshal returns it unwrapped
	if !ok {
		return fmt.Sprintf("the body is not JSON: %v", err)
	}
	before := data[:min(int(syntax.Offset), len(data))]
	line := 1 + bytes.Count(before, []byte{'\n'})
	fault := fmt.Sprintf("the body is not JSON: %v, at byte %d in line %d", err, syntax.Offset, line)
	if n := len(before); n > 0 && (before[n-1] == 'N' || before[n-1] == 'I') {
		fault += "; write null for what was not measured, and \"Infinity\" or \"-Infinity\" in quotes"
	}
	return fault
}
