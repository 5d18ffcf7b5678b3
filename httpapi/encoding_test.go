package httpapi

import (
	"bytes"
	"io"
	"testing"

	"github.com/andybalholm/brotli"
)

// TestWindowBits compares what is read from the first byte of a stream with the
// window that the encoder was told to use, and with the decoder's mind.
func TestWindowBits(t *testing.T) {
	for bits := 10; bits <= 24; bits++ {
		var b bytes.Buffer
		w := brotli.NewWriterOptions(&b, brotli.WriterOptions{Quality: 5, LGWin: bits})
		_, err := w.Write(bytes.Repeat([]byte("0123456789abcdef"), 1<<12))
		if err != nil || w.Close() != nil {
			t.Fatal(err)
		}
		if got := windowBits(b.Bytes()[0]); got != bits {
			t.Errorf("a window of %d bits is read as one of %d", bits, got)
		}
	}
	for first := range 256 {
		stream := append([]byte{byte(first)}, make([]byte, 8)...)
		_, err := io.ReadAll(brotli.NewReader(bytes.NewReader(stream)))
		bits := windowBits(byte(first))
		if bits < 10 || bits > 30 || bits > 24 && err == nil {
			t.Errorf("first byte %#x: %d bits, the decoder says %v", first, bits, err)
		}
	}
}
