package envkey

import (
	"errors"
	"fmt"
	"log/slog"
	"time"
	"unicode/utf8"

	"github.com/lockwood-kms/lockwood/core"
	"github.com/lockwood-kms/lockwood/core/envelope"
)

// The variables that Options stand for; errors and warnings name them.
const (
	Variable             = "FOREST_EXECUTOR_ENCRYPTION_KEY"
	FileVariable         = Variable + "_FILE"
	PreviousVariable     = "FOREST_EXECUTOR_PREVIOUS_ENCRYPTION_KEYS"
	PreviousFileVariable = PreviousVariable + "_FILE"
	AllowWeakVariable    = "FOREST_EXECUTOR_ALLOW_WEAK_KEY"
)

// Options is where the values come from. The zero value configures no key, which
// is allowed: providers then answer core.ErrKeyMissing.
type Options struct {
	// Value is the value of Variable; empty counts as unset, as upstream.
	Value core.SecretBytes
	// File is the path of a file that holds the value, and may appear later.
	// Trailing newlines are dropped. At most one of Value and File is set.
	File string
	// Previous are values that only open, whatever their strength. Empty ones
	// are skipped.
	Previous []core.SecretBytes
	// PreviousFile is the path of a file with one previous value a line, read
	// once. At most one of Previous and PreviousFile is set.
	PreviousFile string
	// AllowWeak accepts a current value of any strength, with a warning.
	AllowWeak bool
	// AuthSecret must differ from the current value.
	AuthSecret core.Secret
	// Logger reports what happens to File in the running process; nil means
	// slog.Default.
	Logger *slog.Logger
	// Now is the clock; nil means time.Now.
	Now func() time.Time
}

// Keys is the environment key: the current value and the previous ones. It is
// safe for concurrent use.
type Keys struct {
	current       source
	previous      []*material
	startWarnings []string
}

// New derives the keys. Its error joins everything that is wrong with the
// options, each with what to do, and never repeats a value. A file that is
// missing, empty or unreadable is no error but a missing key.
func New(o Options) (*Keys, error) {
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	k := &Keys{current: absent{}}
	return k, errors.Join(k.setCurrent(&o), k.setPrevious(&o))
}

func (k *Keys) setCurrent(o *Options) error {
	j := judge{allowWeak: o.AllowWeak, authSecret: []byte(o.AuthSecret)}
	switch {
	case len(o.Value) > 0 && o.File != "":
		return fmt.Errorf("%s and %s are both set: unset one of them", Variable, FileVariable)
	case len(o.Value) > 0:
		m, warnings, err := j.current(Variable, o.Value)
		k.startWarnings = append(k.startWarnings, warnings...)
		if err == nil {
			k.current = fixed{m}
		}
		return err
	case o.File != "":
		f := newKeyFile(o.File, j, o.Logger, o.Now)
		warnings, err := f.start()
		k.startWarnings = append(k.startWarnings, warnings...)
		k.current = f
		return err
	}
	return nil
}

func (k *Keys) setPrevious(o *Options) error {
	values, name := o.Previous, PreviousVariable
	if o.PreviousFile != "" {
		if len(values) > 0 {
			return fmt.Errorf("%s and %s are both set: unset one of them", PreviousVariable, PreviousFileVariable)
		}
		var err error
		if values, err = readLines(o.PreviousFile); err != nil {
			return fmt.Errorf("%s: %w; correct the path, or unset the variable if there are no previous keys", PreviousFileVariable, err)
		}
		name = PreviousFileVariable
	}
	var errs []error
	for i, v := range values {
		if len(v) == 0 {
			continue
		}
		m, warnings, err := previousKey(fmt.Sprintf("%s: key %d", name, i+1), v)
		k.startWarnings = append(k.startWarnings, warnings...)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		k.previous = append(k.previous, m)
	}
	return errors.Join(errs...)
}

// previousKey accepts every value that opens something.
func previousKey(name string, value []byte) (m *material, warnings []string, err error) {
	if tooShortForFIPS(value) {
		return nil, nil, fmt.Errorf("%s: %w; re-seal what it opens without that mode, then remove it", name, errFIPSShort)
	}
	if s := surroundings(value); s != "" {
		warnings = append(warnings, fmt.Sprintf("%s: %s Unless the former key was exactly this, write each key alone, separated by commas in the variable, one a line in the file.", name, s))
	}
	if !utf8.Valid(value) {
		legacy, err := envelope.NewLegacyKey(value)
		if err != nil {
			return nil, nil, fmt.Errorf("%s: %w", name, err)
		}
		return &material{legacy: legacy}, warnings, nil
	}
	m, err = newMaterial(value)
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", name, err)
	}
	return m, warnings, nil
}

// Provider returns a provider of the current key. It answers core.ErrKeyMissing
// for as long as there is none. Each call returns a handle of its own; closing it
// closes no other.
func (k *Keys) Provider() core.KeyProvider { return &provider{source: k.current} }

// Previous returns a provider of each previous value that can be a KEK, in the
// order given. A previous value that is not UTF-8 only opens legacy records and
// is not among them.
func (k *Keys) Previous() []core.KeyProvider {
	var ps []core.KeyProvider
	for _, m := range k.previous {
		if m.kek != nil {
			ps = append(ps, &provider{source: fixed{m}})
		}
	}
	return ps
}

// LegacyKeys returns the keys of upstream's records: the current one first, then
// the previous ones. It is empty while nothing is configured, and longer once a
// key file has appeared, so ask again rather than keep it.
func (k *Keys) LegacyKeys() envelope.LegacyKeys {
	var keys envelope.LegacyKeys
	if current := k.LegacyKey(); current != nil {
		keys = append(keys, current)
	}
	for _, m := range k.previous {
		keys = append(keys, m.legacy)
	}
	return keys
}

// LegacyKey returns the current key for writing records that upstream reads, or
// nil while the key is missing.
func (k *Keys) LegacyKey() *envelope.LegacyKey {
	m, err := k.current.material()
	if err != nil {
		return nil
	}
	return m.legacy
}

// Warnings returns what an operator should be told at every start. They hold no
// secret.
func (k *Keys) Warnings() []string { return k.startWarnings }
