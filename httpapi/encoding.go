package httpapi

import (
	"bytes"
	"compress/gzip"
	"compress/zlib"
	"context"
	"io"

	"github.com/andybalholm/brotli"
)

const (
	// maxWindowBits bounds the window of a brotli stream, to 4 MiB: the largest
	// that encoders use unless they are told otherwise. The format allows 16 MiB,
	// which four bytes of a body suffice to ask for.
	maxWindowBits = 22

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

// decompress undoes a known content encoding. It claims the memory for that, and
// waits for its turn to work.
func decompress(ctx context.Context, body []byte, encoding string, c *claim, limit int64) (text []byte, refused *response) {
	err := c.work(ctx, func() {
		var r io.Reader
		if r, refused = decoder(body, encoding, c); refused == nil {
			text, refused = readAll(r, make([]byte, 0, firstRead), c, bodyCost, limit)
		}
	})
	if err != nil {
		return nil, &busy
	}
	return text, refused
}

func decoder(body []byte, encoding string, c *claim) (io.Reader, *response) {
	if len(body) == 0 {
		return nil, &unreadable
	}
	if !c.grow(bodyCost * firstRead) {
		return nil, &busy
	}
	if encoding == "br" {
		return unbrotli(body, c)
	}
	if !c.grow(inflateCost) {
		return nil, &busy
	}
	return inflate(body)
}

// inflate tells gzip and zlib apart by their first bytes, whatever the encoding
// was called.
func inflate(body []byte) (io.Reader, *response) {
	var (
		r   io.Reader
		err error
	)
	if bytes.HasPrefix(body, []byte{0x1f, 0x8b}) {
		r, err = gzip.NewReader(bytes.NewReader(body))
	} else {
		r, err = zlib.NewReader(bytes.NewReader(body))
	}
	if err != nil {
		return nil, &unreadable
	}
	return r, nil
}

func unbrotli(body []byte, c *claim) (io.Reader, *response) {
	bits := windowBits(body[0])
	if bits > maxWindowBits {
		return nil, &windowTooLarge
	}
	if !c.grow(treesCost + 1<<bits) {
		return nil, &busy
	}
	return brotli.NewReader(bytes.NewReader(body)), nil
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
