package afresh

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"iter"
	"os"
	"time"
	"unicode/utf8"

	"github.com/lockwood-kms/lockwood/core"
	"github.com/lockwood-kms/lockwood/core/envelope"
	"github.com/lockwood-kms/lockwood/core/keyring"
	"github.com/lockwood-kms/lockwood/credential"
)

// The first line of an export says what it is.
const (
	exportFormat  = "lockwood export of what does not open"
	exportVersion = 1
)

// ErrNoExport means that a file is no export, or not a whole one.
var ErrNoExport = errors.New("the file is no whole export")

// line is one line of an export, in JSON. Exactly one of its fields is set, but for Format
// and Version, which stand beside Store. Bytes are in base64, and times in microseconds
// since 1970.
type line struct {
	Format     string          `json:"format,omitempty"`
	Version    int             `json:"version,omitempty"`
	Store      *storeLine      `json:"store,omitempty"`
	DataKey    *dataKeyLine    `json:"data_key,omitempty"`
	Credential *credentialLine `json:"credential,omitempty"`
	End        *endLine        `json:"end,omitempty"`
}

type storeLine struct {
	ID       string    `json:"id"`
	MadeAt   time.Time `json:"made_at"`
	DataKeys int       `json:"data_keys"`
}

type dataKeyLine struct {
	KeyID         string     `json:"key_id"`
	Version       int64      `json:"version"`
	SealsReserved int64      `json:"seals_reserved"`
	CreatedAt     int64      `json:"created_at"`
	Wraps         []wrapLine `json:"wraps"`
}

type wrapLine struct {
	KEKID   core.KEKID `json:"kek_id"`
	Wrapped []byte     `json:"wrapped"`
}

type credentialLine struct {
	UserID                  int64   `json:"user_id"`
	MCPServerID             string  `json:"mcp_server_id"`
	RefreshTokenEnc         []byte  `json:"refresh_token_enc"`
	ClientID                *string `json:"client_id"`
	ClientSecretEnc         []byte  `json:"client_secret_enc"`
	ClientSecretExpiresAt   *int64  `json:"client_secret_expires_at"`
	TokenEndpoint           string  `json:"token_endpoint"`
	TokenEndpointAuthMethod *string `json:"token_endpoint_auth_method"`
	Scopes                  *string `json:"scopes"`
	CreatedAt               int64   `json:"created_at"`
	UpdatedAt               int64   `json:"updated_at"`
}

type endLine struct {
	Credentials int64 `json:"credentials"`
}

// Export writes what loss names to a new file at path, which only its owner can read, and
// reads it back. It returns os.ErrExist if there is a file, which is left as it is, and
// ErrChanged if the store is not what it was any more. With any other error the file is
// removed.
func (s *Starter) Export(ctx context.Context, loss *Loss, path string) (err error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("making the export: %w", err)
	}
	defer func() {
		if err != nil {
			_ = os.Remove(path)
		}
	}()
	sum := sha256.New()
	err = s.write(ctx, loss, f, sum)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("writing the export: %w", err)
	}
	return verifyExport(path, sum.Sum(nil), loss)
}

func (s *Starter) write(ctx context.Context, loss *Loss, to io.Writer, sum hash.Hash) error {
	w := bufio.NewWriter(io.MultiWriter(to, sum))
	e := json.NewEncoder(w)
	if err := e.Encode(line{Format: exportFormat, Version: exportVersion, Store: &storeLine{loss.StoreID, time.Now().UTC(), len(loss.DataKeys)}}); err != nil {
		return err
	}
	for _, k := range loss.DataKeys {
		if err := e.Encode(line{DataKey: lineOfKey(&k)}); err != nil {
			return err
		}
	}
	for row, err := range s.given(ctx, loss) {
		if err != nil {
			return err
		}
		if !isText(row) {
			return fmt.Errorf("credential %d holds text that is not UTF-8; remove the row, or correct it", row.ID)
		}
		if err := e.Encode(line{Credential: lineOfRow(row)}); err != nil {
			return err
		}
	}
	if err := e.Encode(line{End: &endLine{loss.Credentials}}); err != nil {
		return err
	}
	return w.Flush()
}

// verifyExport reads the file once more, as Open does.
func verifyExport(path string, sum []byte, loss *Loss) error {
	text, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("reading the export back: %w", err)
	}
	defer text.Close()
	h := sha256.New()
	if _, err := io.Copy(h, text); err != nil {
		return fmt.Errorf("reading the export back: %w", err)
	}
	e, err := Open(path)
	if err != nil {
		return fmt.Errorf("reading the export back: %w", err)
	}
	if !bytes.Equal(h.Sum(nil), sum) || e.Count != loss.Credentials || len(e.DataKeys) != len(loss.DataKeys) {
		return errors.New("the export is not what was written; is the disk in order?")
	}
	return nil
}

// isText reports whether JSON holds the row as it is.
func isText(row *credential.Row) bool {
	for _, s := range []*string{&row.MCPServerID, row.ClientID, &row.TokenEndpoint, row.TokenEndpointAuthMethod, row.Scopes} {
		if s != nil && !utf8.ValidString(*s) {
			return false
		}
	}
	return true
}

func lineOfKey(k *keyring.DataKeyState) *dataKeyLine {
	l := &dataKeyLine{KeyID: k.ID.String(), Version: k.Version, SealsReserved: k.SealsReserved, CreatedAt: k.CreatedAt.UnixMicro()}
	for _, w := range k.Wraps {
		l.Wraps = append(l.Wraps, wrapLine(w))
	}
	return l
}

func (l *dataKeyLine) state() (keyring.DataKeyState, error) {
	id, err := envelope.ParseKeyID(l.KeyID)
	k := keyring.DataKeyState{ID: id, Version: l.Version, State: keyring.Enabled, SealsReserved: l.SealsReserved, CreatedAt: time.UnixMicro(l.CreatedAt).UTC()}
	for _, w := range l.Wraps {
		k.Wraps = append(k.Wraps, core.WrappedKey(w))
	}
	if err != nil || l.Version < 1 || l.SealsReserved < 0 || len(k.Wraps) == 0 {
		return k, ErrNoExport
	}
	return k, nil
}

func lineOfRow(row *credential.Row) *credentialLine {
	l := &credentialLine{
		UserID: row.UserID, MCPServerID: row.MCPServerID, RefreshTokenEnc: row.RefreshTokenEnc, ClientID: row.ClientID, ClientSecretEnc: row.ClientSecretEnc,
		TokenEndpoint: row.TokenEndpoint, TokenEndpointAuthMethod: row.TokenEndpointAuthMethod, Scopes: row.Scopes,
		CreatedAt: row.CreatedAt.UnixMicro(), UpdatedAt: row.UpdatedAt.UnixMicro(),
	}
	if row.ClientSecretExpiresAt != nil {
		at := row.ClientSecretExpiresAt.UnixMicro()
		l.ClientSecretExpiresAt = &at
	}
	return l
}

func (l *credentialLine) row() *credential.Row {
	row := &credential.Row{
		UserID: l.UserID, RefreshTokenEnc: l.RefreshTokenEnc, ClientSecretEnc: l.ClientSecretEnc,
		Metadata: credential.Metadata{
			MCPServerID: l.MCPServerID, ClientID: l.ClientID, HasClientSecret: l.ClientSecretEnc != nil, TokenEndpoint: l.TokenEndpoint,
			TokenEndpointAuthMethod: l.TokenEndpointAuthMethod, Scopes: l.Scopes,
			CreatedAt: time.UnixMicro(l.CreatedAt).UTC(), UpdatedAt: time.UnixMicro(l.UpdatedAt).UTC(),
		},
	}
	if l.ClientSecretExpiresAt != nil {
		at := time.UnixMicro(*l.ClientSecretExpiresAt).UTC()
		row.ClientSecretExpiresAt = &at
	}
	return row
}

// Export is an export that was read to its end, and is whole.
type Export struct {
	StoreID  string
	MadeAt   time.Time
	DataKeys []keyring.DataKeyState
	Count    int64 // of credentials

	path string
}

// Open reads the export at path. It returns ErrNoExport if the file is none, or not a
// whole one, and the errors of opening a file.
func Open(path string) (*Export, error) {
	e := &Export{path: path}
	for _, err := range e.lines(func(s *storeLine) { e.StoreID, e.MadeAt = s.ID, s.MadeAt }, func(k keyring.DataKeyState) { e.DataKeys = append(e.DataKeys, k) }) {
		if err != nil {
			return nil, err
		}
		e.Count++
	}
	return e, nil
}

// Credentials yields the credentials, in the order of the file.
func (e *Export) Credentials() iter.Seq2[*credential.Row, error] {
	return e.lines(func(*storeLine) {}, func(keyring.DataKeyState) {})
}

// lines reads the file to its end, and yields the credentials and what is wrong. An
// export that does not say how many there are was not written to its end.
func (e *Export) lines(onStore func(*storeLine), onKey func(keyring.DataKeyState)) iter.Seq2[*credential.Row, error] {
	return func(yield func(*credential.Row, error) bool) {
		f, err := os.Open(e.path)
		if err != nil {
			yield(nil, err)
			return
		}
		defer f.Close()
		d := json.NewDecoder(bufio.NewReader(f))
		d.DisallowUnknownFields()
		var first line
		if err := d.Decode(&first); err != nil || first.Format != exportFormat || first.Version != exportVersion || first.Store == nil {
			yield(nil, ErrNoExport)
			return
		}
		onStore(first.Store)
		for keys, credentials := 0, int64(0); ; {
			var l line
			if err := d.Decode(&l); err != nil {
				yield(nil, ErrNoExport)
				return
			}
			switch {
			case l.DataKey != nil:
				k, err := l.DataKey.state()
				if err != nil {
					yield(nil, err)
					return
				}
				keys++
				onKey(k)
			case l.Credential != nil:
				credentials++
				if !yield(l.Credential.row(), nil) {
					return
				}
			case l.End != nil:
				if l.End.Credentials != credentials || keys != first.Store.DataKeys || d.More() {
					yield(nil, ErrNoExport)
				}
				return
			default:
				yield(nil, ErrNoExport)
				return
			}
		}
	}
}
