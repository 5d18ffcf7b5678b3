package awskms

import (
	"errors"
	"fmt"
	"regexp"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws/arn"

	"github.com/lockwood-kms/lockwood/core"
	"github.com/lockwood-kms/lockwood/providers/remote"
)

// Scheme is the scheme of this provider's key URIs.
const Scheme = "awskms"

// settings is a key URI, checked.
type settings struct {
	// id is how the key is configured and first asked for: alias/NAME, a key ID,
	// or an ARN.
	id string
	// key is the key's ARN in the Region that is asked, if id is a key ARN.
	key keyARN
	// keyID is the key ID, if id is one or is a key ARN.
	keyID string
	// alias says that id is an alias, by name or by ARN.
	alias bool

	region, endpoint, profile        string
	roleARN, externalID, sessionName string
	// store is the store ID that a policy demands in the encryption context of the
	// first probe, before a wrap has told it.
	store string
}

var (
	aliasPattern   = regexp.MustCompile(`^alias/[a-zA-Z0-9/_-]{1,250}$`)
	keyIDPattern   = regexp.MustCompile(`^[a-zA-Z0-9-]{1,128}$`)
	regionPattern  = regexp.MustCompile(`^[a-z0-9-]{1,64}$`)
	accountPattern = regexp.MustCompile(`^[0-9]{12}$`)
	sessionPattern = regexp.MustCompile(`^[\w+=,.@-]{2,64}$`) // sts AssumeRole, RoleSessionName
)

// options are the names that a key URI may have behind the '?'.
var options = []string{"region", "endpoint", "profile", "role_arn", "external_id", "session_name", "store"}

// parse checks everything that a key URI says, and tells all mistakes at once.
func parse(uri core.KeyURI) (settings, error) {
	s := settings{
		id: uri.Path, region: uri.Options["region"], endpoint: uri.Options["endpoint"], profile: uri.Options["profile"],
		roleARN: uri.Options["role_arn"], externalID: uri.Options["external_id"], sessionName: uri.Options["session_name"],
		store: uri.Options["store"],
	}
	errs := []error{uri.CheckOptions(options...), remote.CheckValues(uri), s.checkRegion(), s.checkRole()}
	if s.endpoint != "" {
		errs = append(errs, checkEndpoint(s.endpoint))
	}
	if uri.Host != "" {
		errs = append(errs, errHost)
	} else {
		errs = append(errs, s.parseKey())
	}
	return s, errors.Join(errs...)
}

var errHost = errors.New("a key of AWS KMS has no host: write three slashes, as in awskms:///alias/NAME, and name another endpoint by the option endpoint")

var errKey = errors.New("the key is not one of AWS KMS: write awskms:///alias/NAME, awskms:///KEY-ID, or awskms:/// and the ARN of the key or of the alias")

// parseKey sets what id says of the key.
func (s *settings) parseKey() error {
	resource := s.id
	if a, err := arn.Parse(s.id); err == nil {
		if !validARN(a) {
			return errKey
		}
		resource = a.Resource
		if s.key, err = parseKeyARN(s.id); err == nil {
			resource = s.key.id
		} else if !strings.HasPrefix(resource, "alias/") {
			return errKey
		}
		if err := s.adopt(a.Region); err != nil {
			return err
		}
	}
	switch {
	case strings.HasPrefix(resource, "alias/aws/"):
		return errors.New("the alias begins with alias/aws/: such keys belong to AWS services and cannot be used by programs; create a key of your own")
	case aliasPattern.MatchString(resource):
		s.alias = true
	case keyIDPattern.MatchString(resource):
		s.keyID = resource
	default:
		return errKey
	}
	return nil
}

// adopt reconciles the Region of an ARN with the option. Only a multi-Region key
// exists in another Region than its ARN says.
func (s *settings) adopt(region string) error {
	if s.region == "" || s.region == region {
		s.region = region
		return nil
	}
	if !s.key.multiRegion() {
		return fmt.Errorf("the ARN is of the Region %s, but the option region says %s: remove the option, or configure a multi-Region key (mrk-…)", region, s.region)
	}
	s.key.region = s.region
	s.id = s.key.String()
	return nil
}

func (s *settings) checkRegion() error {
	if s.region != "" && !regionPattern.MatchString(s.region) {
		return errors.New("the option region is not the name of a Region, such as eu-west-3")
	}
	return nil
}

func (s *settings) checkRole() error {
	if s.roleARN == "" {
		if s.externalID != "" || s.sessionName != "" {
			return errors.New("the options external_id and session_name belong to a role to assume: add role_arn")
		}
		return nil
	}
	a, err := arn.Parse(s.roleARN)
	if err != nil || a.Service != "iam" || !strings.HasPrefix(a.Resource, "role/") {
		return errors.New("the option role_arn is not the ARN of a role, such as arn:aws:iam::111122223333:role/NAME")
	}
	if s.sessionName != "" && !sessionPattern.MatchString(s.sessionName) {
		return errors.New("the option session_name is not 2 to 64 letters, digits, or any of _+=,.@-")
	}
	return nil
}
