package httpapi

import (
	"crypto/sha256"
	"errors"
	"net/http"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"
	lru "github.com/hashicorp/golang-lru/v2"

	"github.com/lockwood-kms/lockwood/core"
)

const sessionCookie = "forest_session_token"

var errToken = errors.New("the token is not valid")

// caller is who sent a request.
type caller struct {
	userID   int64
	byCookie bool // a browser may have added the token on its own
}

// verifiedTokens is how many tokens are remembered as verified: some 200 bytes
// each.
const verifiedTokens = 4096

// authenticator verifies the JSON Web Tokens of requests. A client sends the same
// token again and again, and its signature does not change: what has been verified
// is remembered, by the token's hash, and only its times are looked at anew.
type authenticator struct {
	secret    []byte
	parser    *jwt.Parser
	validator *jwt.Validator
	verified  *lru.Cache[[sha256.Size]byte, claims]
}

func newAuthenticator(secret core.Secret, now func() time.Time) *authenticator {
	times := []jwt.ParserOption{jwt.WithExpirationRequired(), jwt.WithTimeFunc(now)}
	verified, _ := lru.New[[sha256.Size]byte, claims](verifiedTokens) // fails for sizes below 1
	return &authenticator{
		secret: []byte(secret),
		parser: jwt.NewParser(append(times,
			// HMAC only: with a public-key algorithm, or none, the secret would
			// be taken for something that an attacker knows.
			jwt.WithValidMethods([]string{"HS256", "HS384", "HS512"}),
			jwt.WithStrictDecoding(),
		)...),
		validator: jwt.NewValidator(times...),
		verified:  verified,
	}
}

// authenticate finds out who sent r. Of two tokens neither beats the other: a
// request whose cookie and header name different users is refused, since
// somebody may have planted one of them.
func (a *authenticator) authenticate(r *http.Request) (caller, error) {
	header, cookie := bearerToken(r.Header), cookieToken(r.Header)
	if cookie == "" {
		id, err := a.userID(header)
		return caller{userID: id}, err
	}
	id, err := a.userID(cookie)
	if err != nil || header == "" || header == cookie {
		return caller{userID: id, byCookie: header == ""}, err
	}
	other, err := a.userID(header)
	if err != nil || other != id {
		return caller{}, errToken
	}
	return caller{userID: id}, nil
}

// userID verifies a token and returns its user.
func (a *authenticator) userID(token string) (int64, error) {
	if token == "" {
		return 0, errToken
	}
	hash := sha256.Sum256([]byte(token))
	if c, ok := a.verified.Get(hash); ok {
		if err := a.validator.Validate(&c); err != nil {
			return 0, errToken
		}
		return c.userID, nil
	}
	var c claims
	if _, err := a.parser.ParseWithClaims(token, &c, a.key); err != nil {
		return 0, errToken // the cause may quote the token
	}
	a.verified.Add(hash, c)
	return c.userID, nil
}

// key returns the secret, unless the header holds what this package does not
// understand although it is marked as critical (RFC 7515, section 4.1.11).
func (a *authenticator) key(token *jwt.Token) (any, error) {
	if _, critical := token.Header["crit"]; critical {
		return nil, errToken
	}
	return a.secret, nil
}

// bearerToken returns the token of the Authorization header, or "". Exactly one
// space stands between scheme and token.
func bearerToken(h http.Header) string {
	scheme, token, ok := strings.Cut(strings.TrimSpace(h.Get("Authorization")), " ")
	if !ok || !strings.EqualFold(scheme, "Bearer") || strings.Contains(token, " ") {
		return ""
	}
	return token
}

// cookieToken returns the value of the first session cookie, or "". It does not
// go by net/http, which drops a cookie that it finds malformed: such a cookie
// has to fail, and not to leave the decision to the header.
func cookieToken(h http.Header) string {
	for _, line := range h["Cookie"] {
		for pair := range strings.SplitSeq(line, ";") {
			value, ok := strings.CutPrefix(strings.TrimLeft(pair, " "), sessionCookie+"=")
			if !ok {
				continue
			}
			if unquoted, ok := strings.CutPrefix(value, `"`); ok {
				value = strings.TrimSuffix(unquoted, `"`)
			}
			return value
		}
	}
	return ""
}
