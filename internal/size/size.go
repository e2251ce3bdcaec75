// Package size reads and writes sizes as flags and configuration files have them: a number of bytes,
// or numbers with units, such as 2GiB.
package size

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/alecthomas/units"
)

// Parse returns the bytes of a size: 2000000, 1_000_000, 64MiB or 1GiB512MiB. The units are powers of
// 1024, also if they are written KB, MB and so on.
func Parse(text string) (int64, error) {
	if bytes, err := strconv.ParseInt(strings.ReplaceAll(text, "_", ""), 10, 64); err == nil {
		return bytes, nil
	}
	bytes, err := units.ParseBase2Bytes(text)
	if err != nil {
		return 0, err
	}
	if bytes < 0 != strings.HasPrefix(text, "-") && bytes != 0 { // units does not notice that 8EiB is too large
		return 0, fmt.Errorf("%s is too large", text)
	}
	return int64(bytes), nil
}

// Text returns a size in a form that Parse reads: in the largest unit of which it is a whole multiple,
// or as a number of bytes.
func Text[T ~int | ~int64](bytes T) string {
	number, last := int64(bytes), len(names)-1
	if number == 0 {
		return "0"
	}
	unit := 0
	for unit < last && number%1024 == 0 {
		number /= 1024
		unit++
	}
	return strconv.FormatInt(number, 10) + names[unit]
}

var names = []string{"", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"}
