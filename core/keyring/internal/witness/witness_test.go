package witness_test

import (
	"fmt"
	"slices"
	"testing"

	"github.com/lockwood-kms/lockwood/core/keyring/internal/keystate"
	"github.com/lockwood-kms/lockwood/core/keyring/internal/witness"
)

// Whoever writes to the database can name any number of KEKs compromised. What an operator
// named before is remembered, and the others do not pile up.
func TestManyCompromisedKEKs(t *testing.T) {
	w := witness.New("")
	judge := func(compromised ...string) keystate.State {
		t.Helper()
		state := keystate.State{StoreID: "store", Compromised: compromised}
		if err := w.Judge(&state, w.Mark([16]byte{})); err != nil {
			t.Fatal(err)
		}
		return state
	}
	judge("leaked")
	for round := range 20 {
		var planted []string
		for i := range keystate.MaxCompromised {
			planted = append(planted, fmt.Sprintf("planted:%d-%d", round, i))
		}
		state := judge(planted...)
		if n := len(state.Compromised); n > 3*keystate.MaxCompromised {
			t.Fatalf("after %d loads %d are compromised", round, n)
		}
		if !state.IsCompromised("leaked#1") || !state.IsCompromised("planted:0-0#1") || !slices.Contains(state.Compromised, planted[7]) {
			t.Fatalf("after %d loads one is forgotten", round)
		}
	}
	if state := judge(); !state.IsCompromised("leaked#1") {
		t.Error("the one that an operator named is forgotten")
	}
}
