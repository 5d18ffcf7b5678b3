package plugins

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
)

// maxNames bounds the variables that one plugin may see.
const maxNames = 256

// neverPermitted are the beginnings of names that no plugin may see, whatever the
// lock file says: the encryption keys, the auth secret and the database of
// Lockwood; what would load code into the plugin or its language; and go-plugin's
// own variables, which the host sets.
var neverPermitted = []string{
	"FOREST_", "DATABASE_", "PGPASS", "LOCKWOOD_",
	"LD_", "DYLD_", "GCONV_PATH", "NODE_OPTIONS", "PYTHONPATH", "PYTHONSTARTUP", "BASH_ENV",
	"PLUGIN_",
}

// checkNames reports, as an error, a name that no plugin may see or that is none.
func checkNames(names []string) error {
	if len(names) > maxNames {
		return fmt.Errorf("%d names; at most %d are allowed", len(names), maxNames)
	}
	for _, name := range names {
		if !validName(name) {
			return fmt.Errorf("%q is not the name of an environment variable; each is named in full, without '*' and without a value", cut(name, 64))
		}
		for _, prefix := range neverPermitted {
			if strings.HasPrefix(name, prefix) {
				return fmt.Errorf("%s may never be shown to a plugin; remove it", name)
			}
		}
	}
	return nil
}

func validName(s string) bool {
	for i, c := range []byte(s) {
		letter := 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || c == '_'
		if !letter && (i == 0 || c < '0' || c > '9') {
			return false
		}
	}
	return s != ""
}

// permitted returns those of the variables in environ, each as NAME=value, that
// are named.
func permitted(environ, names []string) []string {
	var env []string
	for _, kv := range environ {
		name, _, _ := strings.Cut(kv, "=")
		if slices.Contains(names, name) {
			env = append(env, kv)
		}
	}
	return env
}

// variable returns the value of a variable in environ, each as NAME=value, or "".
func variable(environ []string, name string) string {
	for _, kv := range environ {
		if value, ok := strings.CutPrefix(kv, name+"="); ok {
			return value
		}
	}
	return ""
}

// vendorCaches are the directories below HOME in which a vendor's SDK, or the program
// that it asks for credentials, keeps tokens that it renews: "IAM Identity Center" of
// the AWS SDKs and Tools Reference Guide, and the AWS CLI.
var vendorCaches = map[string][]string{"awskms": {".aws/sso/cache", ".aws/cli/cache"}}

// caches returns the directories that a plugin of this scheme may write to, if it
// sees HOME.
func caches(scheme string, environ, names []string) (dirs []string) {
	home := variable(environ, "HOME")
	if !filepath.IsAbs(home) || !slices.Contains(names, "HOME") {
		return nil
	}
	for _, dir := range vendorCaches[scheme] {
		dirs = append(dirs, filepath.Join(home, dir))
	}
	return dirs
}

// network is what every SDK's HTTP client reads.
var network = []string{
	"HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY", "https_proxy", "http_proxy", "no_proxy",
	"SSL_CERT_DIR", "SSL_CERT_FILE", "GODEBUG", "TZ",
}

// vendorNames are the variables that the credential chain of each vendor's SDK
// reads. For AWS: "Environment variables" of the AWS SDKs and Tools Reference
// Guide, those about credentials, Regions and endpoints. For Google: "How
// Application Default Credentials works" and google.golang.org/api. The key URI of
// vault says everything, so nothing of VAULT_* is there.
var vendorNames = map[string][]string{
	"awskms": {
		"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN",
		"AWS_PROFILE", "AWS_DEFAULT_PROFILE", "AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE",
		"AWS_REGION", "AWS_DEFAULT_REGION", "AWS_CA_BUNDLE", "AWS_MAX_ATTEMPTS", "AWS_RETRY_MODE", "AWS_DEFAULTS_MODE",
		"AWS_ROLE_ARN", "AWS_ROLE_SESSION_NAME", "AWS_WEB_IDENTITY_TOKEN_FILE",
		"AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "AWS_CONTAINER_CREDENTIALS_FULL_URI",
		"AWS_CONTAINER_AUTHORIZATION_TOKEN", "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
		"AWS_EC2_METADATA_DISABLED", "AWS_EC2_METADATA_SERVICE_ENDPOINT", "AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE",
		"AWS_EC2_METADATA_V1_DISABLED", "AWS_METADATA_SERVICE_TIMEOUT", "AWS_METADATA_SERVICE_NUM_ATTEMPTS",
		"AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_KMS", "AWS_ENDPOINT_URL_STS", "AWS_ENDPOINT_URL_SSO", "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS",
		"AWS_STS_REGIONAL_ENDPOINTS", "AWS_USE_DUALSTACK_ENDPOINT", "AWS_USE_FIPS_ENDPOINT", "AWS_SDK_UA_APP_ID",
		"HOME", "PATH", // PATH for a credential_process of the profile
	},
	"gcpkms": {
		"GOOGLE_APPLICATION_CREDENTIALS", "GOOGLE_CLOUD_PROJECT", "GOOGLE_CLOUD_QUOTA_PROJECT", "GOOGLE_CLOUD_UNIVERSE_DOMAIN",
		"GOOGLE_API_USE_CLIENT_CERTIFICATE", "GOOGLE_API_USE_MTLS_ENDPOINT", "GOOGLE_API_CERTIFICATE_CONFIG",
		"GOOGLE_EXTERNAL_ACCOUNT_ALLOW_EXECUTABLES", "CLOUDSDK_CONFIG", "GCE_METADATA_HOST",
		"HOME",
	},
}

// DefaultEnv returns the names of the variables that a plugin of this scheme may
// see unless the operator says otherwise: proxies and roots for all, and what the
// credential chain of its vendor's SDK reads.
func DefaultEnv(scheme string) []string {
	names := slices.Concat(network, vendorNames[scheme])
	slices.Sort(names)
	return names
}
