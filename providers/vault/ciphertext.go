package vault

import (
	"bytes"
	"encoding/base64"
	"regexp"
)

// maxCiphertext bounds a wrap, in bytes. One of a data key has 89 under aes256-gcm96.
const maxCiphertext = 1024

// ciphertextPattern is the form of the transit engine's ciphertexts: a prefix, the
// version of the key, and base64. The version is canonical: the engine itself reads
// "v0" and "v01" as version 1, so that more than one text would stand for a wrap.
var ciphertextPattern = regexp.MustCompile(`^[a-z]{1,16}:v([1-9][0-9]{0,8}):([A-Za-z0-9+/]+={0,2})$`)

// versionOf returns the version of the key in a ciphertext, in decimal. It is not ok
// if the text is none, or not the one text for its bytes.
func versionOf(ciphertext []byte) (version string, ok bool) {
	if len(ciphertext) > maxCiphertext {
		return "", false
	}
	m := ciphertextPattern.FindSubmatch(ciphertext)
	if m == nil {
		return "", false
	}
	raw, err := base64.StdEncoding.Strict().AppendDecode(nil, m[2])
	return string(m[1]), err == nil && bytes.Equal(base64.StdEncoding.AppendEncode(nil, raw), m[2])
}

// alter returns a ciphertext whose authenticated bytes differ in the last bit. What is no
// ciphertext is returned as it is.
func alter(ciphertext []byte) []byte {
	m := ciphertextPattern.FindSubmatchIndex(ciphertext)
	if m == nil {
		return bytes.Clone(ciphertext)
	}
	raw, err := base64.StdEncoding.AppendDecode(nil, ciphertext[m[4]:m[5]])
	if err != nil || len(raw) == 0 {
		return bytes.Clone(ciphertext)
	}
	raw[len(raw)-1] ^= 1
	return base64.StdEncoding.AppendEncode(bytes.Clone(ciphertext[:m[4]]), raw)
}
