package envelope_test

import (
	"fmt"
	"testing"

	"github.com/lockwood-kms/lockwood/core/envelope"
)

// The benchmarks run beside the bare cipher, AES-256-GCM with a random nonce, on
// the same sizes and the same 64 bytes of aad: the difference is what the header,
// the look-up of the key and the check of its ID cost.

var benchSizes = []int{64, 1 << 10, 16 << 10}

func BenchmarkSeal(b *testing.B) {
	k := testKey(b, 1)
	bare, err := envelope.NewGCM(make([]byte, 32))
	if err != nil {
		b.Fatal(err)
	}
	aad := make([]byte, 64)
	for _, n := range benchSizes {
		plaintext, dst := make([]byte, n), make([]byte, 0, n+envelope.Overhead)
		bench(b, "lockwood", n, func() { dst = k.Seal(dst[:0], plaintext, aad) })
		bench(b, "bare", n, func() { dst = bare.Seal(dst[:0], nil, plaintext, aad) })
	}
}

func BenchmarkOpen(b *testing.B) {
	k := testKey(b, 1)
	s := envelope.NewSnapshot(k, []*envelope.Key{testKey(b, 2)}, nil)
	bare, err := envelope.NewGCM(make([]byte, 32))
	if err != nil {
		b.Fatal(err)
	}
	aad := make([]byte, 64)
	for _, n := range benchSizes {
		plaintext, dst := make([]byte, n), make([]byte, 0, n)
		record, sealed := k.Seal(nil, plaintext, aad), bare.Seal(nil, nil, plaintext, aad)
		bench(b, "lockwood", n, func() {
			if dst, _, err = s.Open(dst[:0], record, aad); err != nil {
				b.Fatal(err)
			}
		})
		bench(b, "bare", n, func() {
			if dst, err = bare.Open(dst[:0], nil, sealed, aad); err != nil {
				b.Fatal(err)
			}
		})
	}
}

func bench(b *testing.B, who string, size int, f func()) {
	b.Run(fmt.Sprintf("%dB/%s", size, who), func(b *testing.B) {
		b.ReportAllocs()
		b.SetBytes(int64(size))
		for b.Loop() {
			f()
		}
	})
}
