package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"unicode"
)

// maxFileSize bounds what is read of a file that holds one value, in bytes.
const maxFileSize = 64 << 10

var errNUL = errors.New("the file holds NUL bytes, as text in UTF-16 does (Windows PowerShell writes it); save it as UTF-8")

// valueOrFile returns value or, where path is set instead, what the file at path
// holds without its trailing newlines, as a shell's $(cat file) gives it. name is
// the variable of value; that of path is name_FILE. ok is false if neither can be
// used, which is then among the errors.
//
// No error repeats the path: somebody may have set the variable to the secret.
func (l *loader) valueOrFile(name, value, path string) (text string, ok bool) {
	switch {
	case path == "":
		return value, true
	case value != "":
		l.wrong("%[1]s and %[1]s_FILE are both set; unset one of them", name)
		return value, true
	}
	content, err := readText(path)
	if err == nil {
		if text = strings.TrimRight(string(content), "\n"); text != "" {
			return text, true
		}
		err = errors.New("the file is empty; write the value into it")
	}
	l.wrong("%s_FILE: %w", name, err)
	return "", false
}

// secretFiles notes the files that hold a secret.
func (l *loader) secretFiles(v *variables) {
	for _, f := range []SecretFile{
		{"FOREST_AUTH_SECRET_FILE", v.AuthSecretFile}, {"DATABASE_URL_FILE", v.DatabaseURLFile}, {"DATABASE_PASSWORD_FILE", v.DatabasePasswordFile},
		{"FOREST_EXECUTOR_ENCRYPTION_KEY_FILE", v.EncryptionKeyFile}, {"FOREST_EXECUTOR_PREVIOUS_ENCRYPTION_KEYS_FILE", v.PreviousKeysFile},
		{"FOREST_ENV_SECRET_FILE", v.ForestEnvSecretFile}, {"FOREST_EXECUTOR_MCP_SERVERS_FILE", v.MCPServersFile},
	} {
		if f.Path != "" {
			l.cfg.SecretFiles = append(l.cfg.SecretFiles, f)
		}
	}
}

// leastKeySize is the length of the shortest generated key, in base64 without padding.
const leastKeySize = 43

// keyFile returns path, unless it is a key instead. Package envkey, which reads the
// file, names the path in what it logs.
func (l *loader) keyFile(name, path string) string {
	alphabet := func(r rune) bool {
		return !unicode.IsLetter(r) && !unicode.IsDigit(r) && !strings.ContainsRune("+/-_=,", r)
	}
	if len(path) < leastKeySize || filepath.IsAbs(path) || strings.ContainsFunc(path, alphabet) {
		return path
	}
	if _, err := os.Stat(path); err == nil {
		return path
	}
	l.wrong("%s: holds what looks like a key; write the path of the file that holds it, or set %s", name, strings.TrimSuffix(name, "_FILE"))
	return ""
}

// readText reads a regular file of text. Its error says what is wrong and what to
// do, and names no path.
func readText(path string) ([]byte, error) {
	info, err := os.Stat(path)
	switch {
	case err != nil:
		return nil, explained(err)
	case info.IsDir():
		return nil, explained(syscall.EISDIR)
	case !info.Mode().IsRegular():
		return nil, errors.New("the path is not that of a regular file; write the content to one")
	}
	file, err := os.Open(path)
	if err != nil {
		return nil, explained(err)
	}
	defer file.Close()
	content, err := io.ReadAll(io.LimitReader(file, maxFileSize+1))
	switch {
	case err != nil:
		return nil, explained(err)
	case len(content) > maxFileSize:
		return nil, fmt.Errorf("the file is larger than %d KiB; name another", maxFileSize>>10)
	case bytes.IndexByte(content, 0) >= 0:
		return nil, errNUL
	}
	return content, nil
}

// explained is err, of opening or reading a file, without the path.
func explained(err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return errors.New("the file does not exist; make it, or correct the path")
	case errors.Is(err, syscall.EISDIR):
		return errors.New("the path is that of a directory; name the file in it")
	case errors.Is(err, fs.ErrPermission):
		return errors.New("this user may not read the file; change its owner or mode, or those of its directory")
	}
	if e, ok := errors.AsType[*fs.PathError](err); ok {
		err = e.Err
	}
	return fmt.Errorf("the file cannot be read: %w; correct the path", err)
}
