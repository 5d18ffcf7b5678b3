package gcpkms

import (
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"cloud.google.com/go/kms/apiv1/kmspb"
	"github.com/googleapis/gax-go/v2/apierror"
	"google.golang.org/grpc/status"
)

// The rights that are needed, and the roles that grant them; Cloud KMS,
// "Permissions and roles".
const (
	permissionEncrypt  = "cloudkms.cryptoKeyVersions.useToEncrypt"
	permissionDecrypt  = "cloudkms.cryptoKeyVersions.useToDecrypt"
	permissionKey      = "cloudkms.cryptoKeys.get"
	permissionVersion  = "cloudkms.cryptoKeyVersions.get"
	permissionVersions = "cloudkms.cryptoKeyVersions.list"
	permissionRandom   = "cloudkms.locations.generateRandomBytes"

	roleUse  = "roles/cloudkms.cryptoKeyEncrypterDecrypter"
	roleView = "roles/cloudkms.viewer"
)

// permissionOf names what a method needs.
var permissionOf = map[string]string{
	opEncrypt: permissionEncrypt, opDecrypt: permissionDecrypt, opRandom: permissionRandom,
	opKey: permissionKey, opVersion: permissionVersion, opVersions: permissionVersions,
}

// A message of the service is not repeated. What an operator needs of it is picked
// out by these.
var (
	deniedPattern     = regexp.MustCompile(`Permission '([a-zA-Z.]+)' denied`)
	permissionPattern = regexp.MustCompile(`^cloudkms\.[a-zA-Z.]{1,90}$`)
	statePattern      = regexp.MustCompile(`\b(?:KEY_|KEY_VERSION_)?([A-Z]+(?:_[A-Z]+)*)\b`)
	numberInName      = regexp.MustCompile(`/cryptoKeyVersions/([1-9][0-9]{0,18})\b`)
)

// missingPermission names the right that is missing and the line that grants it.
func (p *provider) missingPermission(method string, said *status.Status, details apierror.ErrDetails) string {
	permission := permissionOf[method]
	named := details.ErrorInfo.GetMetadata()["permission"]
	if m := deniedPattern.FindStringSubmatch(said.Message()); m != nil {
		named = m[1]
	}
	if permissionPattern.MatchString(named) {
		permission = named
	}
	if permission == "" {
		return "the identity is refused; look at the policy of the key, and whether the key URI is right"
	}
	return fmt.Sprintf("the identity lacks %s (or there is no such key): %s", permission, p.grant(permission))
}

// grant is the command that grants a permission to the identity.
func (p *provider) grant(permission string) string {
	role := roleView
	switch permission {
	case permissionEncrypt, permissionDecrypt:
		role = roleUse
	case permissionRandom:
		return fmt.Sprintf("grant it with gcloud projects add-iam-policy-binding %s --member=%s --role=ROLE, where ROLE is one of your own that has it", p.settings.key.project, p.member())
	}
	return fmt.Sprintf("grant it with gcloud kms keys add-iam-policy-binding %s --member=%s --role=%s", p.keyFlags(), p.member(), role)
}

// member is the identity as a policy names it, as far as the key URI or a service
// account's key tells.
func (p *provider) member() string {
	account := p.settings.impersonate
	if creds := p.login.creds.Current(); account == "" && creds != nil {
		var key struct {
			Email string `json:"client_email"`
		}
		if json.Unmarshal(creds.JSON(), &key) == nil && accountPattern.MatchString(key.Email) {
			account = key.Email
		}
	}
	if account == "" {
		return "PRINCIPAL"
	}
	return "serviceAccount:" + account
}

// keyFlags names the key to gcloud.
func (p *provider) keyFlags() string {
	k := p.settings.key
	return fmt.Sprintf("%s --keyring=%s --location=%s --project=%s", k.id, k.ring, k.location, k.project)
}

// versionCommand is a command of gcloud on a version, "" if it is not known which.
func (p *provider) versionCommand(verb, number string) string {
	if number == "" {
		number = "NUMBER"
	}
	k := p.settings.key
	return fmt.Sprintf("gcloud kms keys versions %s %s --key=%s --keyring=%s --location=%s --project=%s", verb, number, k.id, k.ring, k.location, k.project)
}

func (p *provider) listCommand() string {
	k := p.settings.key
	return fmt.Sprintf("gcloud kms keys versions list --key=%s --keyring=%s --location=%s --project=%s", k.id, k.ring, k.location, k.project)
}

// fill puts what is known into a remedy.
func (p *provider) fill(remedy string) string {
	quota := p.settings.quotaProject
	if quota == "" {
		quota = "QUOTA_PROJECT"
	}
	return strings.NewReplacer("QUOTA_PROJECT", quota, "=PROJECT", "="+p.settings.key.project, "=PRINCIPAL", "="+p.member()).Replace(remedy)
}

// versionState finds the state, and the number of the version, that a failed
// precondition names, or "".
func (p *provider) versionState(said *status.Status, details apierror.ErrDetails) (state, number string) {
	texts := []string{said.Message()}
	for _, v := range details.PreconditionFailure.GetViolations() {
		texts = append(texts, v.GetType(), v.GetSubject(), v.GetDescription())
	}
	for _, text := range texts {
		if m := numberInName.FindStringSubmatch(text); m != nil {
			number = m[1]
		}
		// Names of resources may hold such a word as well.
		words := slices.DeleteFunc(strings.Fields(text), func(w string) bool { return strings.Contains(w, "/") })
		for _, m := range statePattern.FindAllStringSubmatch(strings.Join(words, " "), -1) {
			if _, ok := byVersionState[m[1]]; ok && kmspb.CryptoKeyVersion_CryptoKeyVersionState_value[m[1]] != 0 {
				state = m[1]
			}
		}
	}
	return state, number
}

// networkHint says what kept a connection from being made, in words of ours: which
// part of the text is a server's cannot be told.
func networkHint(message string) string {
	for _, known := range []string{"connection refused", "no such host", "no route to host", "network is unreachable", "i/o timeout", "connection reset", "x509", "produced zero addresses", "EOF"} {
		if strings.Contains(message, known) {
			return " (" + known + ")"
		}
	}
	return ""
}
