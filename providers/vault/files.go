package vault

import (
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/lockwood-kms/lockwood/core"
)

// maxCredential bounds a file that holds a credential, in bytes. The tokens of
// Kubernetes are below 4 KiB, batch tokens of Vault below 2 KiB.
const maxCredential = 64 << 10

// readCredential reads the credential in the file that an option names, without
// the white space around it. A file that is missing or empty may be about to be
// written, by Vault Agent for example: that is no answer of the key.
func readCredential(option, file string) (string, error) {
	f, err := os.Open(file)
	if err != nil {
		return "", fmt.Errorf("the file of %s cannot be read: %w: %w", option, err, core.ErrUnavailable)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxCredential+1))
	if err != nil {
		return "", fmt.Errorf("the file of %s cannot be read: %w: %w", option, err, core.ErrUnavailable)
	}
	credential := strings.TrimSpace(string(b))
	clear(b)
	switch {
	case credential == "":
		return "", fmt.Errorf("the file of %s, %s, is empty: %w", option, file, core.ErrUnavailable)
	case len(b) > maxCredential || strings.ContainsFunc(credential, unprintable):
		return "", fmt.Errorf("the file of %s, %s, holds something else than one line with a credential: %w", option, file, core.ErrUnavailable)
	}
	return credential, nil
}

// unprintable reports whether a character cannot stand in a credential: what does
// not belong into an HTTP header.
func unprintable(r rune) bool { return r <= ' ' || r > '~' }
