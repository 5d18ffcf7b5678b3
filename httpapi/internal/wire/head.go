package wire

import (
	"bytes"
	"math"
	"strconv"
)

// MaxHead bounds the request line and the header together, in bytes, as upstream
// does. Beyond it a connection answers 431 and is closed.
const MaxHead = 16 << 10

// MaxHeaderBytes is MaxHead for http.Server, which allows 4 KiB more than it is
// told.
const MaxHeaderBytes = MaxHead - 4<<10

// maxFields is how many lines a header may have: net/http keeps some 80 bytes for
// each, as long as the request lasts.
const maxFields = 200

// malformedHead makes net/http answer 400 and close the connection, also behind
// the first bytes of another head.
const malformedHead = "MALFORMED\r\n\r\n"

// endless is the length of a message whose end is not known from its head.
const endless = math.MaxInt64

// headEnd looks for the end of a head in b, whose lines before from are known not
// to end it. It returns the length of the head, or 0 and where the first line
// begins that is not complete. A line that ends without CR ends a head too, a
// malformed one.
func headEnd(b []byte, from int) (end, next int) {
	for i := from; ; {
		n := bytes.IndexByte(b[i:], '\n')
		if n < 0 {
			return 0, i
		}
		line := b[i : i+n]
		i += n + 1
		if len(line) == 0 || line[len(line)-1] != '\r' || len(line) == 1 {
			return i, i
		}
	}
}

// bodyLength returns how many bytes follow a head, endless for a chunked body. It
// reports false unless there is one way to read where the request ends (RFC 9112,
// sections 2.2, 5.1, 5.2 and 6): the request is HTTP/1, lines end in CRLF and are
// not folded, names end at their colon, and the body has one Content-Length, or is
// chunked, in HTTP/1.1, and nothing else. It also reports false for more than
// maxFields.
func bodyLength(head []byte) (length int64, ok bool) {
	if bytes.IndexByte(head[:min(early, len(head))], '%') >= 0 {
		return 0, false // what was delivered already cannot be escaped any more
	}
	first := head[:bytes.IndexByte(head, '\n')+1]
	later := bytes.HasSuffix(first, []byte(" HTTP/1.1\r\n"))
	if !later && !bytes.HasSuffix(first, []byte(" HTTP/1.0\r\n")) {
		return 0, false // net/http would answer 505, as if it were to blame
	}
	if bytes.Count(head[len(first):], []byte("\n")) > maxFields+1 {
		return 0, false
	}
	framings := 0
	for line := range bytes.Lines(head[len(first):]) {
		if !bytes.HasSuffix(line, []byte("\r\n")) || line[0] == ' ' || line[0] == '\t' {
			return 0, false
		}
		name, value, _ := bytes.Cut(line, []byte(":"))
		value = bytes.Trim(value, " \t\r\n")
		switch {
		case bytes.ContainsAny(name, " \t"):
			return 0, false
		case equalFold(name, "Content-Length"):
			framings++
			length, ok = parseLength(value)
		case equalFold(name, "Transfer-Encoding"):
			framings++
			length, ok = endless, later && equalFold(value, "chunked")
		default:
			continue
		}
		if !ok || framings > 1 {
			return 0, false
		}
	}
	return length, true
}

// equalFold compares as HTTP does, by ASCII: for bytes.EqualFold the Kelvin sign is a
// k, though it is of another length.
func equalFold(b []byte, s string) bool { return len(b) == len(s) && bytes.EqualFold(b, []byte(s)) }

// parseLength reads a Content-Length, which is decimal digits and nothing else
// (RFC 9110, section 8.6).
func parseLength(value []byte) (int64, bool) {
	n, err := strconv.ParseUint(string(value), 10, 62)
	return int64(n), err == nil
}

// rewrite returns a copy of a head as net/http shall see it. The last request of a
// connection is one whose body is chunked: where it ends only net/http knows, which
// would go on with whatever follows, unjudged.
func rewrite(head []byte, last bool) []byte {
	line := bytes.IndexByte(head, '\n')
	out := append(escapePercent(head[:line]), head[line:]...)
	if last {
		out = append(out[:len(out)-len("\r\n")], "Connection: close\r\n\r\n"...)
	}
	return out
}

// escapePercent returns a request line in which each '%' of a path that holds a
// bad escape is itself escaped: decoding it once then yields the path literally.
func escapePercent(line []byte) []byte {
	start := bytes.IndexByte(line, ' ') + 1
	end := len(line)
	if query := bytes.IndexAny(line[start:], "?#"); query >= 0 {
		end = start + query
	}
	if !hasBadEscape(line[start:end]) {
		return bytes.Clone(line)
	}
	escaped := append(bytes.Clone(line[:start]), bytes.ReplaceAll(line[start:end], []byte("%"), []byte("%25"))...)
	return append(escaped, line[end:]...)
}

func hasBadEscape(path []byte) bool {
	for i := range path {
		if path[i] == '%' && !IsEscape(path[i:]) {
			return true
		}
	}
	return false
}

// IsEscape reports whether s begins with '%' and two hexadecimal digits.
func IsEscape[S string | []byte](s S) bool {
	return len(s) >= 3 && s[0] == '%' && isHex(s[1]) && isHex(s[2])
}

func isHex(c byte) bool {
	return '0' <= c && c <= '9' || 'a' <= c|0x20 && c|0x20 <= 'f'
}
