package tenant

import (
	"math/big"
	"strconv"
	"strings"
)

// rateUnits are from the largest to the smallest.
var rateUnits = []struct {
	name string
	bits int64
}{{"gbit", 1_000_000_000}, {"mbit", 1_000_000}, {"kbit", 1_000}, {"bit", 1}}

// ParseRate reads bits, or bits a second: a number and one of bit, kbit, mbit, gbit, in any
// case and perhaps with "/s" behind it, such as "100mbit", "1.5Gbit" and "10Mbit/s".
func ParseRate(s string) (uint64, error) {
	text := strings.TrimSuffix(strings.ToLower(s), "/s")
	for _, u := range rateUnits {
		number, found := strings.CutSuffix(text, u.name)
		if !found {
			continue
		}
		number = strings.TrimSpace(number)
		value, ok := new(big.Rat).SetString(number)
		if !ok || strings.Trim(number, "0123456789.") != "" || len(number) > 24 {
			break
		}
		value.Mul(value, new(big.Rat).SetInt64(u.bits))
		if !value.IsInt() || !value.Num().IsUint64() {
			return 0, Errorf(ErrInvalid, "%q is not a whole number of bits, or too many", s)
		}
		return value.Num().Uint64(), nil
	}
	return 0, Errorf(ErrInvalid, "%q is not a number with a unit, such as 100mbit (units: bit, kbit, mbit, gbit)", s)
}

// FormatRate is the shortest text that ParseRate reads.
func FormatRate(bits uint64) string {
	for _, u := range rateUnits {
		if n := uint64(u.bits); bits >= n && bits%n == 0 {
			return strconv.FormatUint(bits/n, 10) + u.name
		}
	}
	return "0bit"
}
