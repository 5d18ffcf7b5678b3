package httpapi

import (
	"bytes"
	"errors"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/golang-jwt/jwt/v5"

	"github.com/lockwood-kms/lockwood/credential"
)

var (
	errClaims   = errors.New("the claims are not valid")
	errUser     = errors.New("the token names no user")
	errAudience = errors.New("the token is for somebody else")
)

// maxNumericDate is the last second of the year 9999; a later one counts as that.
const maxNumericDate = 253402300799

// claims is the payload of a token, as far as it matters. It is a jwt.Claims.
type claims struct {
	userID         int64
	expires, since *jwt.NumericDate // exp and nbf, nil if absent
}

// UnmarshalJSON reads the claims that matter and skips the others: a token of
// upstream's holds its user's whole profile. Of duplicates the last counts.
func (c *claims) UnmarshalJSON(text []byte) error {
	dec := jsontext.NewDecoder(bytes.NewBuffer(text),
		jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true))
	if start, err := dec.ReadToken(); err != nil || start.Kind() != jsontext.KindBeginObject {
		return errClaims
	}
	*c = claims{}
	for dec.PeekKind() != jsontext.KindEndObject {
		name, err := dec.ReadToken()
		if err != nil {
			return errClaims
		}
		if err := c.read(name.String(), dec); err != nil {
			return err
		}
	}
	if c.userID == 0 {
		return errUser
	}
	return nil
}

func (c *claims) read(name string, dec *jsontext.Decoder) (err error) {
	switch name {
	case "id":
		c.userID, err = readUserID(dec)
	case "exp":
		c.expires, err = readNumericDate(dec, math.Floor)
	case "nbf":
		c.since, err = readNumericDate(dec, math.Ceil)
	case "aud":
		// RFC 7519, section 4.1.3: who does not identify itself with the
		// audience must reject the token. Lockwood has no such name.
		err = errAudience
	default:
		err = dec.SkipValue()
	}
	return err
}

// readNumericDate reads seconds since 1970 and rounds them. Any other type is an
// error, null too.
func readNumericDate(dec *jsontext.Decoder, round func(float64) float64) (*jwt.NumericDate, error) {
	if dec.PeekKind() != jsontext.KindNumber {
		return nil, errClaims
	}
	token, err := dec.ReadToken()
	if err != nil {
		return nil, errClaims
	}
	seconds, err := token.Float()
	if err != nil {
		return nil, errClaims
	}
	seconds = max(-maxNumericDate, min(round(seconds), maxNumericDate))
	return jwt.NewNumericDate(time.Unix(int64(seconds), 0)), nil
}

// readUserID reads the id claim: an integer from 1 to credential.MaxUserID, as a
// number without fraction and exponent, or as a string of decimal digits. There is
// one way to write each number but for zeros in front, so that two programs that
// read the same token see the same user.
func readUserID(dec *jsontext.Decoder) (int64, error) {
	kind := dec.PeekKind()
	if kind != jsontext.KindNumber && kind != jsontext.KindString {
		return 0, errUser
	}
	token, err := dec.ReadToken()
	if err != nil {
		return 0, errUser
	}
	return parseUserID(token.String())
}

func parseUserID(s string) (int64, error) {
	if s == "" || strings.Trim(s, "0123456789") != "" {
		return 0, errUser // ParseInt would read a sign
	}
	id, err := strconv.ParseInt(s, 10, 32)
	if err != nil || id < 1 || id > credential.MaxUserID {
		return 0, errUser
	}
	return id, nil
}

// GetExpirationTime implements jwt.Claims.
func (c *claims) GetExpirationTime() (*jwt.NumericDate, error) { return c.expires, nil }

// GetNotBefore implements jwt.Claims.
func (c *claims) GetNotBefore() (*jwt.NumericDate, error) { return c.since, nil }

// GetIssuedAt implements jwt.Claims. Upstream does not look at it either.
func (c *claims) GetIssuedAt() (*jwt.NumericDate, error) { return nil, nil }

// GetIssuer implements jwt.Claims.
func (c *claims) GetIssuer() (string, error) { return "", nil }

// GetSubject implements jwt.Claims.
func (c *claims) GetSubject() (string, error) { return "", nil }

// GetAudience implements jwt.Claims.
func (c *claims) GetAudience() (jwt.ClaimStrings, error) { return nil, nil }
