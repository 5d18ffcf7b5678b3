package plugins

import (
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/lockwood-kms/lockwood/core"
	"github.com/lockwood-kms/lockwood/plugins/keyproviderpb"
)

// Limits of the protocol that package core does not set; sizes in bytes.
// keyprovider.proto documents them.
const (
	maxURISize      = 4096
	maxAADFields    = 16
	maxAADNameSize  = 64
	maxAADValueSize = 1024
	maxWarnings     = 16
	maxWarningSize  = 1024
	maxErrorSize    = 4096
	maxVersionSize  = 64
)

// aadToWire checks aad against the protocol's limits and encodes it.
func aadToWire(aad core.AAD) ([]*keyproviderpb.AADField, error) {
	if len(aad) > maxAADFields {
		return nil, fmt.Errorf("aad of %d fields; a plugin takes %d at most", len(aad), maxAADFields)
	}
	fields := make([]*keyproviderpb.AADField, len(aad))
	seen := make(map[string]bool, len(aad))
	for i, f := range aad {
		if !validAADName(f.Name) || seen[f.Name] {
			return nil, fmt.Errorf("the name of aad field %d is not 1 to %d of a-z, 0-9 and '_', or is there twice", i, maxAADNameSize)
		}
		if len(f.Value) > maxAADValueSize || !utf8.ValidString(f.Value) || strings.ContainsRune(f.Value, 0) {
			return nil, fmt.Errorf("the value of aad field %s is not UTF-8 without NUL of at most %d bytes", f.Name, maxAADValueSize)
		}
		seen[f.Name] = true
		fields[i] = &keyproviderpb.AADField{Name: f.Name, Value: f.Value}
	}
	return fields, nil
}

func validAADName(s string) bool {
	for _, c := range []byte(s) {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '_' {
			return false
		}
	}
	return s != "" && len(s) <= maxAADNameSize
}

func aadFromWire(fields []*keyproviderpb.AADField) core.AAD {
	aad := make(core.AAD, len(fields))
	for i, f := range fields {
		aad[i] = core.AADField{Name: f.GetName(), Value: f.GetValue()}
	}
	return aad
}

func wrappedToWire(w core.WrappedKey) *keyproviderpb.WrappedKey {
	return &keyproviderpb.WrappedKey{KekId: string(w.KEKID), Wrapped: w.Wrapped}
}

// wrappedFromWire does not check; checkWrapped does, where it is the peer's.
func wrappedFromWire(w *keyproviderpb.WrappedKey) core.WrappedKey {
	return core.WrappedKey{KEKID: core.KEKID(w.GetKekId()), Wrapped: w.GetWrapped()}
}

// checkWrapped reports, as an error, that w breaks the limits of a wrapped key.
func checkWrapped(w core.WrappedKey) error {
	if err := checkKEKID(w.KEKID); err != nil {
		return err
	}
	if n := len(w.Wrapped); n == 0 || n > core.MaxWrappedSize {
		return fmt.Errorf("a wrapped data key of %d bytes; 1 to %d are allowed", n, core.MaxWrappedSize)
	}
	return nil
}

func checkKEKID(id core.KEKID) error {
	if n := len(id); n == 0 || n > core.MaxKEKIDSize {
		return fmt.Errorf("a KEK ID of %d bytes; 1 to %d are allowed", n, core.MaxKEKIDSize)
	}
	if id.Key() == "" || !utf8.ValidString(string(id)) {
		return errors.New("a KEK ID that names no key, or is not UTF-8")
	}
	return nil
}

// checkDataKey reports, as an error, that b cannot be a data key that a provider
// made. All zeros is what a provider returns that forgot to draw one.
func checkDataKey(b []byte) error {
	if len(b) != core.DataKeySize {
		return fmt.Errorf("a data key of %d bytes; want %d", len(b), core.DataKeySize)
	}
	for _, c := range b {
		if c != 0 {
			return nil
		}
	}
	return errors.New("a data key of zeros")
}

// cut returns at most limit bytes of s, valid UTF-8 and on one line.
func cut(s string, limit int) string {
	return strings.ReplaceAll(cutLines(s, limit), "\n", " ")
}

// cutLines is cut for text of several lines.
func cutLines(s string, limit int) string {
	if len(s) > limit {
		s = s[:limit]
	}
	s = strings.ToValidUTF8(s, "")
	return strings.Map(func(r rune) rune {
		if r != '\n' && r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, s)
}
