package client

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/lockwood-kms/lockwood/core"
)

const (
	// userTokenLife is how long a token that is signed here is valid, and
	// userTokenReuse how long it is used: Lockwood remembers that a token's signature
	// held, and clocks differ.
	userTokenLife  = 10 * time.Minute
	userTokenReuse = 5 * time.Minute

	maxUserID = 1<<31 - 1
)

// SignedUserToken returns a UserToken for a program that has FOREST_AUTH_SECRET, as the
// workflow executor: it signs tokens for the user by HS256 (RFC 7515, section 3.1), valid
// for 10 minutes. Whoever has the secret can act as every user, so a program that acts for
// one user only is given a token of that user's instead. It returns an error if authSecret
// is empty, or userID is not from 1 to 2147483647.
func SignedUserToken(authSecret core.Secret, userID int64) (UserToken, error) {
	if authSecret == "" {
		return nil, errors.New("signing user tokens: the auth secret is empty")
	}
	if userID < 1 || userID > maxUserID {
		return nil, fmt.Errorf("signing user tokens: the user ID has to be from 1 to %d", maxUserID)
	}
	var (
		mu     sync.Mutex
		token  core.Secret
		signed time.Time
	)
	return func(context.Context) (core.Secret, error) {
		mu.Lock()
		defer mu.Unlock()
		// The wall clock counts: Go's monotonic clock stands still while a machine sleeps.
		now := time.Now().Round(0)
		if age := now.Sub(signed); token == "" || age < 0 || age >= userTokenReuse {
			token, signed = sign(authSecret, userID, now), now
		}
		return token, nil
	}, nil
}

// sign returns a JSON Web Token with the claims that Lockwood wants.
func sign(authSecret core.Secret, userID int64, now time.Time) core.Secret {
	encode := base64.RawURLEncoding.EncodeToString
	claims := fmt.Sprintf(`{"id":%d,"iat":%d,"exp":%d}`, userID, now.Unix(), now.Add(userTokenLife).Unix())
	text := encode([]byte(`{"alg":"HS256","typ":"JWT"}`)) + "." + encode([]byte(claims))
	mac := hmac.New(sha256.New, []byte(authSecret))
	_, _ = mac.Write([]byte(text)) // never fails
	return core.Secret(text + "." + encode(mac.Sum(nil)))
}
