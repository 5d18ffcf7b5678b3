package providertest

import (
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"strings"
)

// shows reports whether text holds secret, as it is or in one of the forms in which
// bytes are commonly printed. Half of it is too much already.
func shows(text string, secret []byte) bool {
	part := secret[:len(secret)/2]
	list := strings.Trim(fmt.Sprint(part), "[]")
	forms := []string{
		string(part),
		hex.EncodeToString(part),
		list,
		strings.ReplaceAll(list, " ", ", "),
		// Without the last characters, which depend on what follows.
		base64.StdEncoding.EncodeToString(part)[:20],
		base64.URLEncoding.EncodeToString(part)[:20],
		strings.Trim(fmt.Sprintf("%q", part), `"`),
	}
	lower := strings.ToLower(text)
	for _, f := range forms {
		if strings.Contains(text, f) || strings.Contains(lower, strings.ToLower(f)) {
			return true
		}
	}
	return false
}
