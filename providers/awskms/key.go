package awskms

import (
	"errors"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws/arn"

	"github.com/lockwood-kms/lockwood/core"
)

// keyARN is the ARN of a KMS key, in parts. The zero value is no key.
type keyARN struct{ partition, region, account, id string }

var errNoKeyARN = errors.New("not the ARN of a key")

func parseKeyARN(s string) (keyARN, error) {
	a, err := arn.Parse(s)
	if err != nil || !validARN(a) {
		return keyARN{}, errNoKeyARN
	}
	id, ok := strings.CutPrefix(a.Resource, "key/")
	if !ok || !keyIDPattern.MatchString(id) {
		return keyARN{}, errNoKeyARN
	}
	return keyARN{partition: a.Partition, region: a.Region, account: a.AccountID, id: id}, nil
}

// validARN says whether a is of KMS, and of an account and a Region. What is not
// could hide the '#' that ends the name of a key.
func validARN(a arn.ARN) bool {
	return a.Service == "kms" && regionPattern.MatchString(a.Partition) && regionPattern.MatchString(a.Region) && accountPattern.MatchString(a.AccountID)
}

// String returns the ARN, as the service wants it.
func (a keyARN) String() string {
	return arn.ARN{Partition: a.partition, Service: "kms", Region: a.region, AccountID: a.account, Resource: "key/" + a.id}.String()
}

// multiRegion says whether the key may exist in several Regions. AWS gives that
// prefix to such keys alone.
func (a keyARN) multiRegion() bool { return strings.HasPrefix(a.id, "mrk-") }

// name is the key part of a KEK ID. Related multi-Region keys have one account, one
// key ID and the same material: they are one KEK, so the Region becomes '*', which
// is also how an IAM policy names all of them.
func (a keyARN) name() string {
	if a.multiRegion() {
		a.region = "*"
	}
	return a.String()
}

// resolved is what is known of the configured key.
type resolved struct {
	// arn is the key that the process stays with; zero while it is not known.
	arn keyARN
	// asked says that DescribeKey has answered.
	asked bool
	// material is the current key material as last reported, or "" where the
	// service does not report it.
	material string
}

// known says whether the key's ARN is known.
func (r resolved) known() bool { return r.arn != keyARN{} }

// kekID returns the KEK ID of the key under a material.
func (r resolved) kekID(material string) core.KEKID { return core.NewKEKID(r.arn.name(), material) }

// requestID is how the key is named to the service.
func (p *provider) requestID(r resolved) string {
	if r.known() {
		return r.arn.String()
	}
	return p.settings.id
}

// reported returns the key that a response names, if it is the configured one.
// Some emulators give a bare key ID, which is enough once the ARN is known.
func (p *provider) reported(r resolved, keyID string) (keyARN, bool) {
	a, err := parseKeyARN(keyID)
	if err != nil {
		return r.arn, r.known() && keyID == r.arn.id
	}
	if r.known() {
		return a, a.name() == r.arn.name()
	}
	return a, p.settings.keyID == "" || a.id == p.settings.keyID
}
