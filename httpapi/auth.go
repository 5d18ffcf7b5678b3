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

// caller is who sent a request.
type caller struct {
	userID   int64
	byCookie bool // a browser may have added the token on its own
}

// denial is why a request counts as nobody's: it is answered with 401 or, where it is
// a token exchange, with an error of OAuth. The client is not told; the log and the
// metrics are, and so there is a closed list.
type denial string

const (
	denialNone      denial = ""
	denialNoToken   denial = "no_token"
	denialMalformed denial = "malformed"
	denialSignature denial = "signature"
	denialCritical  denial = "critical_header"
	denialExpired   denial = "expired"
	denialEarly     denial = "not_yet_valid"
	denialNoExpiry  denial = "no_expiry"
	denialAudience  denial = "audience"
	denialUser      denial = "user_id"
	denialTwoUsers  denial = "two_users"
	denialCookie    denial = "cookie"
	// denialUnidentified is that of a token exchange whose subject token was not looked at.
	denialUnidentified denial = "not_identified"
)

var errCritical = errors.New("the token's header holds a critical parameter")

// denials maps what is wrong with a token to the denial; the first entry that
// matches decides, anything else is denialMalformed.
var denials = []struct {
	is     error
	denial denial
}{
	{errCritical, denialCritical},
	{errAudience, denialAudience},
	{errUser, denialUser},
	{jwt.ErrTokenSignatureInvalid, denialSignature},
	{jwt.ErrTokenRequiredClaimMissing, denialNoExpiry},
	{jwt.ErrTokenExpired, denialExpired},
	{jwt.ErrTokenNotValidYet, denialEarly},
}

func denialOf(err error) denial {
	for _, d := range denials {
		if errors.Is(err, d.is) {
			return d.denial
		}
	}
	return denialMalformed
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

// authenticate finds out who sent a request. No token beats another: each one in
// the request has to be valid, and all have to name one user, since somebody may
// have planted one of them.
func (a *authenticator) authenticate(h http.Header) (caller, denial) {
	bearers := appendBearers(make([]string, 0, 2), h)
	tokens := appendCookies(bearers, h)
	if len(tokens) == 0 {
		return caller{}, denialNoToken
	}
	c := caller{byCookie: len(bearers) == 0}
	for i, token := range tokens {
		id, why := a.userID(token)
		if why != denialNone {
			return caller{}, why
		}
		if i > 0 && id != c.userID {
			return caller{}, denialTwoUsers
		}
		c.userID = id
	}
	return c, denialNone
}

// userID verifies a token and returns its user.
func (a *authenticator) userID(token string) (int64, denial) {
	hash := sha256.Sum256([]byte(token))
	if c, ok := a.verified.Get(hash); ok {
		if err := a.validator.Validate(&c); err != nil {
			return 0, denialOf(err)
		}
		return c.userID, denialNone
	}
	var c claims
	if _, err := a.parser.ParseWithClaims(token, &c, a.key); err != nil {
		return 0, denialOf(err) // the error itself may quote the token
	}
	a.verified.Add(hash, c)
	return c.userID, denialNone
}

// key returns the secret, unless the header holds what this package does not
// understand although it is marked as critical (RFC 7515, section 4.1.11).
func (a *authenticator) key(token *jwt.Token) (any, error) {
	if _, critical := token.Header["crit"]; critical {
		return nil, errCritical
	}
	return a.secret, nil
}

// appendBearers appends the token of each Authorization header whose scheme is
// Bearer. Exactly one space stands between scheme and token: what does not keep to
// that is a token that is not valid.
func appendBearers(tokens []string, h http.Header) []string {
	for _, value := range h["Authorization"] {
		value = strings.TrimSpace(value)
		scheme := value
		if end := strings.IndexAny(value, " \t"); end >= 0 {
			scheme = value[:end]
		}
		if token := value[len(scheme):]; strings.EqualFold(scheme, "Bearer") && token != "" {
			tokens = append(tokens, strings.TrimPrefix(token, " "))
		}
	}
	return tokens
}

// appendCookies appends the value of each session cookie that is not empty. It does
// not go by net/http, which drops a cookie that it finds malformed: such a cookie
// has to fail, and not to leave the decision to another token.
func appendCookies(tokens []string, h http.Header) []string {
	for _, line := range h["Cookie"] {
		for pair := range strings.SplitSeq(line, ";") {
			name, value, _ := strings.Cut(pair, "=")
			if strings.TrimSpace(name) != sessionCookie {
				continue
			}
			if unquoted, ok := strings.CutPrefix(value, `"`); ok {
				value = strings.TrimSuffix(unquoted, `"`)
			}
			if value != "" {
				tokens = append(tokens, value)
			}
		}
	}
	return tokens
}
