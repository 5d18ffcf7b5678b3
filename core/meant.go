package core

import (
	"net/url"
	"regexp"
	"strings"
	"sync"
)

// Names of keys as other programs write them. Only what matches in full is repeated in
// a suggestion: anything else that stands in the place of a key URI may be a secret.
var (
	awsARN      = pattern(`^arn:aws[a-z-]{0,16}:kms:[a-z0-9-]{1,32}:[0-9]{12}:(?:key|alias)/[A-Za-z0-9/_-]{1,256}$`)
	awsAlias    = pattern(`^alias/[A-Za-z0-9/_-]{1,250}$`)
	awsKeyID    = pattern(`^(?:mrk-[0-9a-f]{32}|[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12})$`)
	awsRegion   = pattern(`^[a-z]{2}(?:-[a-z]{1,12}){1,3}-[0-9]{1,2}$`)
	gcpKey      = pattern(`^(projects/[a-z0-9:.-]{1,100}/locations/[a-z0-9-]{1,63}/keyRings/[A-Za-z0-9_-]{1,63}/cryptoKeys/[A-Za-z0-9_-]{1,63})(?:/(?:cryptoKeyVersions|versions)/[0-9]{1,19})?$`)
	vaultKey    = pattern(`^(?:v1/)?([A-Za-z0-9_.-]{1,31}(?:/[A-Za-z0-9_.-]{1,31}){0,4})/keys/([A-Za-z0-9_.-]{1,64})$`)
	vaultName   = pattern(`^[A-Za-z0-9_][A-Za-z0-9_-]{0,30}$`)
	hostPattern = pattern(`^[A-Za-z0-9.-]{1,253}(?::[0-9]{1,5})?$`)
)

// pattern compiles an expression when it is first needed. That takes milliseconds, which
// every process would spend at its start, and few need any of them.
func pattern(text string) func() *regexp.Regexp {
	return sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(text) })
}

// MeantKeyURI returns the key URI that text means, if text names a key of AWS KMS, Cloud
// KMS or Vault as those services or go-cloud, sigstore, Tink, smallstep or SOPS do, and
// is not a key URI of this project's form. Where a part is missing, an upper-case word
// such as REGION or HOST stands for it. Nothing is repeated but names of keys.
func MeantKeyURI(text string) (string, bool) {
	text = strings.TrimSpace(text)
	meant := meantBare(text)
	if scheme, rest, ok := strings.Cut(text, "://"); ok {
		meant = meantByScheme(scheme, rest)
	} else if scheme, rest, ok := strings.Cut(text, ":"); ok && meant == "" {
		meant = meantBySmallstep(scheme, rest)
	}
	return meant, meant != "" && meant != text
}

// meantBare is for a name without a scheme.
func meantBare(name string) string {
	switch {
	case awsARN().MatchString(name), awsAlias().MatchString(name):
		return meantAWS(name, nil)
	case gcpKey().MatchString(name):
		return meantGCP(name)
	}
	return ""
}

// meantByScheme is for go-cloud, sigstore, Tink, SOPS, and for URIs of ours that are
// almost right. One whose form is right is wrong in its options alone, and has no other.
func meantByScheme(scheme, rest string) string {
	rest, query, _ := strings.Cut(rest, "?")
	options, err := url.ParseQuery(query)
	if err != nil {
		options = nil
	}
	switch scheme {
	case "awskms", "aws-kms":
		if strings.HasPrefix(rest, "/") && scheme == "awskms" {
			return ""
		}
		return meantAWS(strings.TrimPrefix(rest, "/"), options)
	case "gcpkms", "gcp-kms":
		if meant := meantGCP(strings.TrimPrefix(rest, "/")); meant != scheme+"://"+rest {
			return meant
		}
	case "vault", "hashivault", "hcvault", "http", "https":
		if meant := meantVault(rest, scheme, options); !strings.HasPrefix(meant, scheme+"://"+rest+"?") {
			return meant
		}
	}
	return ""
}

// meantBySmallstep is for URIs whose parameters follow a colon, separated by semicolons.
func meantBySmallstep(scheme, rest string) string {
	parameters, query, _ := strings.Cut(rest, "?")
	options, err := url.ParseQuery(query)
	if err != nil {
		options = url.Values{}
	}
	bare := ""
	for parameter := range strings.SplitSeq(parameters, ";") {
		name, value, ok := strings.Cut(parameter, "=")
		if ok {
			options.Set(name, value)
		} else {
			bare = parameter
		}
	}
	switch scheme {
	case "awskms":
		return meantAWS(options.Get("key-id"), options)
	case "cloudkms":
		return meantGCP(strings.TrimPrefix(bare, "/"))
	}
	return ""
}

// meantAWS is for an ARN, an alias or a key ID, behind an endpoint if there is one.
func meantAWS(name string, options url.Values) string {
	endpoint := ""
	if host, key, ok := strings.Cut(name, "/"); ok && strings.ContainsAny(host, ".:") && hostPattern().MatchString(host) {
		name, endpoint = key, host
	}
	var query []string
	switch {
	case awsARN().MatchString(name):
	case awsAlias().MatchString(name), awsKeyID().MatchString(name):
		region := options.Get("region")
		if !awsRegion().MatchString(region) {
			region = "REGION"
		}
		query = append(query, "region="+region)
	default:
		return ""
	}
	if endpoint != "" {
		query = append(query, "endpoint=https://"+endpoint)
	}
	if len(query) == 0 {
		return "awskms:///" + name
	}
	return "awskms:///" + name + "?" + strings.Join(query, "&")
}

func meantGCP(name string) string {
	if m := gcpKey().FindStringSubmatch(name); m != nil {
		return "gcpkms:///" + m[1]
	}
	return ""
}

// meantVault is for the name of a key, or for an address and the path of one. A web
// address is none unless it is that of a key.
func meantVault(rest, scheme string, options url.Values) string {
	host, path, hasPath := strings.Cut(rest, "/")
	web := scheme == "http" || scheme == "https"
	if !hasPath && !web && vaultName().MatchString(host) {
		mount := options.Get("engine")
		if !vaultName().MatchString(mount) {
			mount = "transit"
		}
		return "vault://HOST:8200/" + mount + "/keys/" + host + "?token_file=FILE"
	}
	m := vaultKey().FindStringSubmatch(path)
	if m == nil || !hostPattern().MatchString(host) {
		return ""
	}
	if !strings.Contains(host, ":") {
		host += ":8200"
	}
	return "vault://" + host + "/" + m[1] + "/keys/" + m[2] + "?token_file=FILE"
}
