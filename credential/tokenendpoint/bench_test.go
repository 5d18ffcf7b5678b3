package tokenendpoint

import "testing"

// BenchmarkCheck measures the judgement of an endpoint that no Guard remembers.
func BenchmarkCheck(b *testing.B) {
	for name, raw := range map[string]string{
		"name":          "https://idp.example.com/oauth2/token",
		"international": "https://b\u00fccher.example/oauth2/token",
		"IPv4":          "https://10.0.0.5:8443/oauth2/token",
		"IPv6":          "https://[2001:db8::1]:8443/oauth2/token",
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if err := Check(raw, Options{}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
