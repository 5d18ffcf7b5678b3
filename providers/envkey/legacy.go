package envkey

import (
	"github.com/lockwood-kms/lockwood/core"
)

// LegacyKeyOf returns the KEK ID of the key under which a legacy record opens, and
// whether that is the current key. ok is false if it opens under none. The KEK ID is empty
// for a previous value that is not UTF-8, which has none.
func (k *Keys) LegacyKeyOf(record []byte) (id core.KEKID, current, ok bool) {
	if m, err := k.current.material(); err == nil && m.opens(record) {
		return m.kek.id, true, true
	}
	for _, m := range k.previous {
		switch {
		case !m.opens(record):
		case m.kek == nil:
			return "", false, true
		default:
			return m.kek.id, false, true
		}
	}
	return "", false, false
}

// opens reports whether the legacy record opens under the key.
func (m *material) opens(record []byte) bool {
	plaintext, err := m.legacy.Open(nil, record)
	clear(plaintext)
	return err == nil
}
