package store

import "testing"

// A store ID is rendered into SQL, so nothing but the characters of one passes.
func TestNewID(t *testing.T) {
	for id, ok := range map[string]bool{
		"": true, "VEC2OXJHKF276U2TLTPW22EDFO": true, "0b5c2f0e-7f0a-4c1e-9d53-2a1f6f8a9b10": true,
		"'; DROP TABLE x; --": false, "a b": false, "é": false, "0123456789012345678901234567890123456789012345678901234567890123x": false,
	} {
		got, err := MigrateOptions{StoreID: id}.NewID()
		if (err == nil) != ok || ok && (got == "" || id != "" && got != id) {
			t.Errorf("%q: %q, %v", id, got, err)
		}
	}
}
