package envelope

import "crypto/cipher"

// The code paths that foreign vectors are run through.
var (
	HKDFSHA256 = hkdfSHA256
	NewGCM     = newGCM
)

// LegacyInfo is the info of the legacy derivation.
const LegacyInfo = legacyInfo

// LegacyKeyWith returns a legacy key whose cipher is scripted.
func LegacyKeyWith(aead cipher.AEAD) *LegacyKey { return &LegacyKey{aead} }
