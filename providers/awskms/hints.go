package awskms

import (
	"errors"
	"fmt"
	"regexp"
	"strings"

	"github.com/lockwood-kms/lockwood/core"
	"github.com/lockwood-kms/lockwood/providers/remote"
)

// A message of the service is not repeated, since it may quote the request. What
// an operator needs of a refusal is picked out of it by these.
var (
	principalPattern = regexp.MustCompile(`arn:aws[a-z-]*:(?:iam|sts)::[0-9]{12}:[\w+=,.@/-]{1,256}`)
	explicitPattern  = regexp.MustCompile(`explicit deny in an? ([a-z -]{1,40} policy)`)
)

// describeAnswer writes the text of a failure that a service answered with.
func (p *provider) describeAnswer(f *remote.ServiceError, message string) {
	switch {
	case errors.Is(f.Means, core.ErrInvalidCiphertext):
		// Which of the reasons it was is never told.
		f.Text = remote.ErrNotOpened.Error()
	case f.Permission:
		f.Text = fmt.Sprintf("%s: %s: %v", place(f), p.missingPermission(f, message), f.Means)
	case f.Means == nil:
		f.Text = place(f) + ": " + f.Code
	default:
		f.Text = fmt.Sprintf("%s: %s: %s: %v", place(f), f.Code, p.fill(f.Remedy), f.Means)
	}
}

// fill puts the key and its Region into the command of a remedy. An alias cannot be
// enabled, so the key's ARN is named where it is known.
func (p *provider) fill(remedy string) string {
	key := p.requestID(*p.key.Load())
	if p.region != "" {
		key += " --region " + p.region
	}
	return strings.ReplaceAll(remedy, "{key}", key)
}

// missingPermission names the right that is missing, whose, and the statement that
// grants it.
func (p *provider) missingPermission(f *remote.ServiceError, message string) string {
	who := "the identity"
	if principal := principalPattern.FindString(message); principal != "" {
		who = principal
	}
	if f.Service != serviceKMS {
		return fmt.Sprintf("%s may not take on the role: grant it %s, and let the role's trust policy name it and its external_id", who, statement("sts:"+f.Operation, p.settings.roleARN))
	}
	permission := "kms:" + f.Operation
	if m := explicitPattern.FindStringSubmatch(message); m != nil {
		return fmt.Sprintf("%s is refused %s by an explicit deny in its %s: remove that; the statement that grants it is %s", who, permission, m[1], statement(permission, p.resource()))
	}
	text := fmt.Sprintf("%s lacks %s: add to its IAM policy, or with the identity as Principal to the key's policy, %s", who, permission, statement(permission, p.resource()))
	if f.Operation == "Decrypt" && p.settings.store == "" && p.seen.Load() == nil {
		text += "; if the policy demands an encryption context of one store, name that store in the key URI, as store=ID"
	}
	return text
}

// statement is a line of a policy.
func statement(action, resource string) string {
	if resource == "" {
		resource = "*"
	}
	return fmt.Sprintf(`{"Effect":"Allow","Action":"%s","Resource":"%s"}`, action, strings.ReplaceAll(resource, `"`, ""))
}

// resource is the key as a policy names it. An alias cannot stand there, so until
// the key is known a placeholder does.
func (p *provider) resource() string {
	if r := p.key.Load(); r.known() {
		return r.arn.name()
	}
	id := "KEY-ID"
	if p.settings.keyID != "" {
		id = p.settings.keyID
	}
	return fmt.Sprintf("arn:aws:kms:%s:ACCOUNT-ID:key/%s", p.region, id)
}
