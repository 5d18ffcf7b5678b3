package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/lockwood-kms/lockwood/config"
	"github.com/lockwood-kms/lockwood/core"
	"github.com/lockwood-kms/lockwood/internal/plain"
	"github.com/lockwood-kms/lockwood/providers/envkey"
)

// devSecrets are the variables without which nothing useful runs.
var devSecrets = []string{"FOREST_AUTH_SECRET", "FOREST_EXECUTOR_ENCRYPTION_KEY"}

// ensureDevSecrets appends to the .env file at path a fresh value for each of the
// secrets that is set neither there nor in environ, and returns the names it
// added. What is there is never changed.
func ensureDevSecrets(path string, environ []string) (added []string, err error) {
	inFile, err := config.EnvFile{Path: path, Optional: true}.Read()
	if err != nil {
		return nil, err
	}
	var lines strings.Builder
	for _, name := range devSecrets {
		if _, ok := inFile[name]; ok || isSet(environ, name) || isSet(environ, name+"_FILE") {
			continue
		}
		if _, ok := inFile[name+"_FILE"]; ok {
			continue
		}
		lines.WriteString(name + "=" + envkey.Generate() + "\n")
		added = append(added, name)
	}
	if len(added) == 0 {
		return nil, nil
	}
	return added, appendPrivately(path, lines.String())
}

// appendPrivately appends text to the file at path, which is made with mode 0600
// if it does not exist.
func appendPrivately(path, text string) (err error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		return fmt.Errorf("opening %s: %w", path, err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	info, err := f.Stat()
	if err != nil {
		return fmt.Errorf("reading %s: %w", path, err)
	}
	if info.Mode().Perm()&0o077 != 0 {
		return fmt.Errorf("%s can be read by other users; run: chmod 600 %s", path, path)
	}
	if n := info.Size(); n > 0 {
		last := make([]byte, 1)
		if _, err := f.ReadAt(last, n-1); err != nil {
			return fmt.Errorf("reading %s: %w", path, err)
		}
		if last[0] != '\n' {
			text = "\n" + text
		}
	}
	if _, err := f.WriteString(text); err != nil {
		return fmt.Errorf("writing %s: %w", path, err)
	}
	return nil
}

func isSet(environ []string, name string) bool {
	for _, e := range environ {
		if strings.HasPrefix(e, name+"=") {
			return true
		}
	}
	return false
}

// devTokenLife is how long the token that --dev prints is valid.
const devTokenLife = 24 * time.Hour

// devToken returns a token for user 1.
func devToken(secret core.Secret, now time.Time) (string, error) {
	claims := jwt.MapClaims{"id": 1, "iat": now.Unix(), "exp": now.Add(devTokenLife).Unix()}
	token, err := jwt.NewWithClaims(jwt.SigningMethodHS256, claims).SignedString([]byte(secret))
	if err != nil {
		return "", fmt.Errorf("signing a token: %w", err)
	}
	return token, nil
}

// printCurl prints the commands that try the service at base, such as
// http://127.0.0.1:3400. Without parties, nil, there is nobody to use a credential with.
func printCurl(w io.Writer, base, token string, parties *devParties) {
	if parties != nil {
		parties.print(w, base, token)
	} else {
		plain.Fprintf(w, `
Deposit a credential (as user 1, the token is valid for a day):

  curl -sS -X POST %[1]s/mcp-oauth-credentials -H 'Authorization: Bearer %[2]s' -H 'Content-Type: application/json' -d '{"mcpServerId":"my-server","refreshToken":"my-refresh-token","tokenEndpoint":"https://idp.example.com/oauth2/token"}'
`, base, token)
	}
	plain.Fprintf(w, `
List your credentials, and remove one:

  curl -sS %[1]s/mcp-oauth-credentials -H 'Authorization: Bearer %[2]s'
  curl -sS -X DELETE %[1]s/mcp-oauth-credentials/my-server -H 'Authorization: Bearer %[2]s'

`, base, token)
}
