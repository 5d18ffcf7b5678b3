package httpapi

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"compress/zlib"
	"io"

	"github.com/andybalholm/brotli"
)

const (
	// maxWindowBits bounds the window of a brotli stream, to 4 MiB: the largest
	// that encoders use unless they are told otherwise. The format allows 16 MiB,
	// which four bytes of a body suffice to ask for.
	maxWindowBits = 22

	// windowCost is how many bytes of memory a byte of a window is counted for.
	windowCost = 2

	// treesCost is what a brotli stream may take besides, in bytes: 256 Huffman
	// codes of each of three kinds, at up to 4,320 bytes. Ten bytes of a body suffice
	// to ask for most of that.
	treesCost = 3 << 20

	// inflateCost is what a gzip or deflate stream is counted for, in bytes.
	inflateCost = 128 << 10
)

// knownEncoding reports whether a Content-Encoding can be undone. Encodings are
// named in lower case and not combined, as upstream has it.
func knownEncoding(name string) bool {
	switch name {
	case "", "identity", "gzip", "deflate", "br":
		return true
	}
	return false
}

// decoded returns a reader that undoes a known content encoding. It claims the
// memory for that.
func decoded(body io.Reader, encoding string, c *claim, limit int64) (io.Reader, *response) {
	if encoding == "" || encoding == "identity" {
		return body, nil
	}
	compressed := bufio.NewReader(io.LimitReader(body, limit))
	if encoding == "br" {
		return unbrotli(compressed, c)
	}
	if !c.grow(inflateCost) {
		return nil, &busy
	}
	return inflate(compressed)
}

// inflate tells gzip and zlib apart by their first bytes, whatever the encoding
// was called.
func inflate(compressed *bufio.Reader) (io.Reader, *response) {
	var (
		r   io.Reader
		err error
	)
	if magic, _ := compressed.Peek(2); bytes.Equal(magic, []byte{0x1f, 0x8b}) {
		r, err = gzip.NewReader(compressed)
	} else {
		r, err = zlib.NewReader(compressed)
	}
	if err != nil {
		return nil, &unreadable
	}
	return r, nil
}

func unbrotli(compressed *bufio.Reader, c *claim) (io.Reader, *response) {
	first, err := compressed.Peek(1)
	if err != nil {
		return nil, &unreadable
	}
	bits := windowBits(first[0])
	if bits > maxWindowBits {
		return nil, &windowTooLarge
	}
	if !c.grow(treesCost + windowCost<<bits) {
		return nil, &busy
	}
	return brotli.NewReader(compressed), nil
}

// windowBits returns the size of a brotli stream's window, as the power of two
// that its first byte tells (RFC 7932, section 9.1). The one value that RFC 7932
// does not define counts as the largest.
func windowBits(first byte) int {
	if first&1 == 0 {
		return 16
	}
	if n := first >> 1 & 7; n != 0 {
		return 17 + int(n)
	}
	switch n := first >> 4 & 7; n {
	case 0:
		return 17
	case 1:
		return 30 // a "large window", which is not brotli
	default:
		return 8 + int(n)
	}
}
