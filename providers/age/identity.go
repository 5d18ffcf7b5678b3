package age

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"

	agelib "filippo.io/age"

	"github.com/lockwood-kms/lockwood/core"
)

// maxFileSize bounds what is read of an identity file, in bytes: some 800
// identities.
const maxFileSize = 64 << 10

// Identity is the private half of a recovery KEK. It is safe for concurrent use.
// Formatting and logging it yield its KEK ID, which is no secret.
type Identity struct {
	recipient *Recipient
	key       agelib.Identity
}

// Recipient returns the public half.
func (i *Identity) Recipient() *Recipient { return i.recipient }

// KEKID returns the KEK ID of the wraps that the identity unwraps. It is that of
// its Recipient.
func (i *Identity) KEKID() core.KEKID { return i.recipient.id }

// Provider returns a provider that unwraps what the recipient of i wrapped, and
// wraps for it. Each call returns a handle of its own; closing it closes no other.
func (i *Identity) Provider() core.KeyProvider { return &provider{identity: i} }

// Format writes the KEK ID for every verb, so that none reaches the key.
func (i *Identity) Format(s fmt.State, _ rune) {
	_, _ = io.WriteString(s, string(i.KEKID())) // fmt.State never fails
}

// LogValue returns the KEK ID.
func (i *Identity) LogValue() slog.Value { return slog.StringValue(string(i.KEKID())) }

// MarshalText returns the KEK ID, so that no encoder shows the key.
func (i *Identity) MarshalText() ([]byte, error) { return []byte(i.KEKID()), nil }

// ParseIdentities reads an identity file as age-keygen writes it: a line for each
// identity, AGE-SECRET-KEY-1… or, for a post-quantum one, AGE-SECRET-KEY-PQ-1…,
// among comments ('#') and empty lines. One that is given twice is returned once.
// An error names the line and says what to do, and repeats nothing of it. The file
// has at most 64 KiB. It fails under GODEBUG=fips140=only.
func ParseIdentities(r io.Reader) ([]*Identity, error) {
	if err := permitted(); err != nil {
		return nil, fmt.Errorf("reading identities: %w", err)
	}
	text, err := io.ReadAll(io.LimitReader(r, maxFileSize+1))
	defer clear(text)
	if err != nil {
		return nil, fmt.Errorf("reading identities: %w", err)
	}
	if len(text) > maxFileSize {
		return nil, fmt.Errorf("reading identities: the file is larger than %d bytes, and no identity file: give the one that age-keygen wrote", maxFileSize)
	}
	identities, err := parseLines(bytes.TrimPrefix(text, []byte("\xef\xbb\xbf")))
	if err != nil {
		return nil, fmt.Errorf("reading identities: %w", err)
	}
	return identities, nil
}

func parseLines(text []byte) ([]*Identity, error) {
	var identities []*Identity
	seen := make(map[core.KEKID]bool)
	number := 0
	for line := range bytes.Lines(text) {
		number++
		line = bytes.TrimSpace(line)
		if len(line) == 0 || line[0] == '#' {
			continue
		}
		i, err := parseIdentity(string(line))
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", number, err)
		}
		if !seen[i.KEKID()] {
			seen[i.KEKID()] = true
			identities = append(identities, i)
		}
	}
	if len(identities) == 0 {
		return nil, errors.New("the file holds no identity, which is a line that begins with AGE-SECRET-KEY-: give the file that age-keygen wrote")
	}
	return identities, nil
}

var (
	errEncrypted   = errors.New("the file is encrypted: decrypt it first, age -d -o IDENTITY FILE, to a place that is wiped afterwards")
	errBadIdentity = errors.New("the identity is mistyped or cut: copy its line again, whole")
)

// others are what may be found in the place of an identity, by how its line begins.
var others = []struct {
	prefix string
	err    error
}{
	{"age-encryption.org/", errEncrypted},
	{"-----BEGIN AGE ENCRYPTED FILE-----", errEncrypted},
	{"-----BEGIN ", errors.New("this is a key of another kind, such as one of SSH: give the file that age-keygen wrote")},
	{recipientPrefix, errors.New("this is a recipient, the public half, which unwraps nothing: give the file that age-keygen wrote, with the line that begins with AGE-SECRET-KEY-")},
	{pluginPrefix, errors.New("this is an identity of a plugin of age, which is not taken: give the file that age-keygen wrote")},
	{"\xff\xfe", errUTF16},
	{"\xfe\xff", errUTF16},
}

var errUTF16 = errors.New("the file is UTF-16, which redirection in PowerShell writes: convert it to UTF-8, and write such files with age-keygen -o")

// parseIdentity drops the errors of the library, which quote parts of the line.
func parseIdentity(line string) (*Identity, error) {
	for _, o := range others {
		if strings.HasPrefix(line, o.prefix) {
			return nil, o.err
		}
	}
	switch {
	case strings.HasPrefix(line, identityPrefix+"PQ-1"):
		key, err := agelib.ParseHybridIdentity(line)
		if err != nil {
			return nil, errBadIdentity
		}
		return &Identity{recipient: hybridRecipient(key.Recipient()), key: key}, nil
	case strings.HasPrefix(line, identityPrefix+"1"):
		key, err := agelib.ParseX25519Identity(line)
		if err != nil {
			return nil, errBadIdentity
		}
		return &Identity{recipient: x25519Recipient(key.Recipient()), key: key}, nil
	}
	return nil, errors.New("this is neither an identity, which begins with AGE-SECRET-KEY- in capitals, nor a comment: give the file that age-keygen wrote")
}
