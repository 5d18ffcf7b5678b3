package config

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/joho/godotenv"

	"github.com/lockwood-kms/lockwood/core"
)

// EnvFile is a file of variables, a line NAME=value each. The zero value is none.
type EnvFile struct {
	Path string
	// Optional says that the file need not exist.
	Optional bool
}

// Read returns the variables of the file. Its error joins every line that is wrong,
// with line and column, counted from 1, or says why the file cannot be read. It
// repeats nothing of the content.
func (f EnvFile) Read() (map[string]string, error) {
	text, err := f.text()
	if err != nil {
		return nil, err
	}
	values, mistakes := f.parse(text)
	return values, errors.Join(mistakes...)
}

func (f EnvFile) text() ([]byte, error) {
	if f.Path == "" {
		return nil, nil
	}
	text, err := os.ReadFile(f.Path) // any file: /dev/null and pipes too
	switch {
	case f.Optional && errors.Is(err, fs.ErrNotExist):
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("%s: %w", core.Text(f.Path), explained(err))
	case bytes.IndexByte(text, 0) >= 0:
		return nil, fmt.Errorf("%s: %w", core.Text(f.Path), errNUL)
	}
	return bytes.TrimPrefix(text, []byte("\ufeff")), nil
}

// parse returns the variables of text, and what is wrong with the lines that are none,
// which godotenv tells with what they hold and without their place.
func (f EnvFile) parse(text []byte) (values map[string]string, mistakes []error) {
	lines := bytes.SplitAfter(append(bytes.Clone(text), '\n'), []byte("\n"))
	for at := 0; at < len(lines); {
		next := statementEnd(lines, at)
		if next == 0 {
			next = at + 1
			column, mistake := mistakeIn(string(lines[at]))
			mistakes = append(mistakes, fmt.Errorf("%s:%d:%d: %s", core.Text(f.Path), at+1, column, mistake))
			lines[at] = []byte("\n")
		}
		at = next
	}
	values, err := godotenv.UnmarshalBytes(bytes.Join(lines, nil))
	if err != nil {
		mistakes = append(mistakes, fmt.Errorf("%s: is not of the form NAME=value, a line each", core.Text(f.Path)))
	}
	delete(values, "")
	return values, mistakes
}

// statementEnd returns the line after the statement that begins with line at, which
// has more lines if a quotation mark closes on a later one, or 0 if there is none.
func statementEnd(lines [][]byte, at int) int {
	var statement []byte
	for i := at; i < len(lines); i++ {
		statement = append(statement, lines[i]...)
		if _, err := godotenv.UnmarshalBytes(statement); err == nil {
			return i + 1
		}
		if i == at && !bytes.ContainsAny(statement, `'"`) {
			return 0
		}
	}
	return 0
}

// mistakeIn says what is wrong with line, and in which column.
func mistakeIn(line string) (column int, mistake string) {
	line = strings.TrimRightFunc(line, unicode.IsSpace)
	end := strings.IndexAny(line, "=:")
	if end < 0 {
		return columnAt(line, len(line)), "the line has no = between a name and a value; write NAME=value, or # before a comment"
	}
	start := len(line) - len(strings.TrimLeftFunc(line, unicode.IsSpace))
	if i := strings.IndexFunc(line[start:end], func(r rune) bool { return !ofAName(r) }); i >= 0 {
		return columnAt(line, start+i), "a name holds letters, digits, _ and . only; correct the name, or write # before a comment"
	}
	value := strings.TrimLeftFunc(line[end+1:], unicode.IsSpace)
	opening := len(line) - len(value)
	if n := quotedSize(value); n > 0 {
		return columnAt(line, opening+n), "text follows the closing quotation mark; remove it, or put the whole value between single quotes"
	}
	return columnAt(line, opening), "the quotation mark is never closed; write the value on one line between single quotes"
}

// columnAt returns the column of the character of line that begins at byte i.
func columnAt(line string, i int) int { return utf8.RuneCountInString(line[:i]) + 1 }

// ofAName reports whether r may stand before the =, where also export may stand.
func ofAName(r rune) bool {
	return r < unicode.MaxASCII && (unicode.IsLetter(r) || unicode.IsDigit(r) || strings.ContainsRune("_. \t", r))
}

// quotedSize returns the size of the quoted text with which value begins, or 0.
func quotedSize(value string) int {
	for i := 1; i < len(value) && isQuote(rune(value[0])); i++ {
		if value[i] == value[0] && value[i-1] != '\\' {
			return i + 1
		}
	}
	return 0
}
