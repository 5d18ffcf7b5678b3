package credential

import (
	"context"
	"errors"

	"github.com/lockwood-kms/lockwood/core"
)

// otherBytes is the reason for which a record does not open that was bound to its row
// while a database in another encoding took and gave the bytes of text for other
// characters.
const otherBytes = "bound to the bytes of another encoding, by a version that did not ask the database for UTF-8: deposit it anew"

// boundToOtherBytes reports whether the record, which does not open because of err, is
// bound to the row's text as it reads when its characters are taken for bytes, as in
// ISO 8859-1. Only whoever had the key can have made such a record, so telling it from
// other failures tells nothing to anybody else. Nothing is ever served that way.
func (s *Service) boundToOtherBytes(ctx context.Context, row *Row, column string, err error) bool {
	if !errors.Is(err, core.ErrInvalidCiphertext) {
		return false
	}
	other, changed := *row, false
	for _, text := range []*string{&other.MCPServerID, &other.TokenEndpoint} {
		changed = charactersToBytes(text) || changed
	}
	for _, text := range []**string{&other.ClientID, &other.TokenEndpointAuthMethod} {
		if *text == nil {
			continue
		}
		own := **text
		changed = charactersToBytes(&own) || changed
		*text = &own
	}
	if !changed {
		return false
	}
	_, _, err = s.OpenRecord(ctx, &other, column)
	return err == nil
}

// charactersToBytes makes of each character of text the byte of its number, and
// reports whether that is another text. It leaves one alone that has a character
// without such a byte.
func charactersToBytes(text *string) bool {
	b := make([]byte, 0, len(*text))
	for _, r := range *text {
		if r > 0xff {
			return false
		}
		b = append(b, byte(r))
	}
	if string(b) == *text {
		return false
	}
	*text = string(b)
	return true
}
