package records

import (
	"strings"

	"github.com/lockwood-kms/lockwood/access/protocol"
	"github.com/lockwood-kms/lockwood/credential"
)

// Placeholders returns pairs for sqltext.Load that say, of a row a of
// lockwood_access_tokens that may be missing, what state its credential is in, which
// verdicts are dead, and when the access token ends that is given out.
func Placeholders() []string {
	var dead []string
	for _, v := range protocol.Verdicts() {
		if v.Dead() {
			dead = append(dead, "'"+string(v)+"'")
		}
	}
	isDead := "a.verdict IN (" + strings.Join(dead, ", ") + ")"
	state := "CASE WHEN " + isDead + " THEN '" + string(credential.NeedsReauth) + "' WHEN a.verdict <> '' THEN '" +
		string(credential.Failing) + "' ELSE '" + string(credential.Connected) + "' END"
	return []string{
		"{{state}}", state,
		"{{is_dead}}", isDead,
		"{{token_end}}", "CASE WHEN a.access_token_enc IS NOT NULL AND NOT a.rejected THEN a.expires_at END",
	}
}
