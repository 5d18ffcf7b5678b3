package config

import (
	"errors"
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/caarlos0/env/v11"
)

// parse fills v with values. What is not of its variable's type is wrong, and its
// field zero.
func (l *loader) parse(v *variables, values map[string]string) error {
	err := env.ParseWithOptions(v, env.Options{Environment: values})
	if err == nil {
		return nil
	}
	all, ok := errors.AsType[env.AggregateError](err)
	if !ok {
		return fmt.Errorf("reading the environment: %w", err)
	}
	for _, err := range all.Errors {
		mistake, ok := errors.AsType[env.ParseError](err) // which repeats the value
		if !ok {
			return fmt.Errorf("reading the environment: %w", err)
		}
		field, _ := reflect.TypeFor[variables]().FieldByName(mistake.Name)
		name := field.Tag.Get("env")
		l.mistyped = append(l.mistyped, name)
		if l.judges(name) {
			l.wrong("%s: want %s", name, field.Tag.Get("want"))
		}
	}
	return nil
}

// within reports that n, the value of name, is out of bounds, unless it was none.
func (l *loader) within(name string, n, least, most int) int {
	if (n < least || n > most) && !slices.Contains(l.mistyped, name) {
		l.wrong("%s: want a whole number from %d to %d", name, least, most)
	}
	return n
}

// duration is a time.Duration that may be written in days, and is not negative.
type duration time.Duration

// UnmarshalText implements encoding.TextUnmarshaler.
func (d *duration) UnmarshalText(text []byte) error {
	value, err := time.ParseDuration(string(text))
	if days, ok := strings.CutSuffix(string(text), "d"); ok {
		var n uint64
		n, err = strconv.ParseUint(days, 10, 16)
		value = time.Duration(n) * 24 * time.Hour
	}
	if err == nil && value < 0 {
		err = errors.New("negative")
	}
	if err != nil {
		return err
	}
	*d = duration(value)
	return nil
}

// list splits key URIs, which hold neither commas nor white space.
func list(value string) []string {
	return strings.FieldsFunc(value, func(r rune) bool { return r == ',' || unicode.IsSpace(r) })
}

// prefixes reads networks, or single addresses.
func (l *loader) prefixes(name, value string) []netip.Prefix {
	var prefixes []netip.Prefix
	for _, text := range list(value) {
		prefix, err := netip.ParsePrefix(text)
		if err != nil {
			var addr netip.Addr
			addr, err = netip.ParseAddr(text)
			prefix = netip.PrefixFrom(addr.Unmap(), addr.Unmap().BitLen())
		}
		if err != nil {
			l.wrong("%s: want addresses or networks separated by commas, such as 10.0.0.0/8", name)
			return nil
		}
		if bits := prefix.Bits() - 96; prefix.Addr().Is4In6() && bits >= 0 {
			prefix = netip.PrefixFrom(prefix.Addr().Unmap(), bits)
		}
		prefixes = append(prefixes, prefix.Masked())
	}
	return prefixes
}

// oneOf returns value if it is one of want, and else the first of them.
func (l *loader) oneOf(name, value string, want ...string) string {
	if slices.Contains(want, value) {
		return value
	}
	shown := slices.DeleteFunc(slices.Clone(want), func(s string) bool { return s == "" })
	l.wrong("%s: want %s", name, strings.Join(shown, " or "))
	return want[0]
}
