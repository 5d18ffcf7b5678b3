package client

import (
	"maps"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/lockwood-kms/lockwood/internal/openapitest"
)

// TestEveryCodeIsAState holds that the client knows each code of the routes that it asks,
// and no other.
func TestEveryCodeIsAState(t *testing.T) {
	document, err := openapitest.Load("../docs/openapi.yaml")
	if err != nil {
		t.Fatal(err)
	}
	codes := document.Codes("deposit", "list", "disconnect", "accessToken")
	if got := slices.Sorted(maps.Keys(states)); !slices.Equal(got, codes) || len(codes) < 10 {
		t.Errorf("the client knows\n%s\nthe contract has\n%s", strings.Join(got, "\n"), strings.Join(codes, "\n"))
	}
}

// TestSignedUserToken holds that a token is one of the user's that another library reads,
// and is signed anew in time.
func TestSignedUserToken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		user, err := SignedUserToken("FAKE-auth-secret", 7)
		if err != nil {
			t.Fatal(err)
		}
		seen := make(map[string]int)
		for range 12 {
			token, err := user(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			claims := jwt.MapClaims{}
			_, err = jwt.NewParser(jwt.WithValidMethods([]string{"HS256"}), jwt.WithExpirationRequired(), jwt.WithTimeFunc(time.Now)).
				ParseWithClaims(string(token), claims, func(*jwt.Token) (any, error) { return []byte("FAKE-auth-secret"), nil })
			if end, _ := claims.GetExpirationTime(); err != nil || claims["id"] != 7.0 || time.Until(end.Time) < 5*time.Minute {
				t.Errorf("%v: %v", claims, err)
			}
			seen[string(token)]++
			time.Sleep(time.Minute)
		}
		if len(seen) != 3 {
			t.Errorf("%d tokens in 12 minutes, want one for each 5 of them", len(seen))
		}
	})
}
