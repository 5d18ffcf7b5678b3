package gcpkms

import (
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/lockwood-kms/lockwood/core"
	"github.com/lockwood-kms/lockwood/providers/remote"
)

// Scheme is the scheme of the key URIs of this provider.
const Scheme = "gcpkms"

// The options of a key URI.
const (
	optionEndpoint    = "endpoint"
	optionInsecure    = "insecure"
	optionFile        = "credentials_file"
	optionImpersonate = "impersonate_service_account"
	optionQuota       = "quota_project"
)

// settings is a key URI, checked.
type settings struct {
	key          keyName
	endpoint     string // host:port, or "" for Google's
	insecure     bool
	file         string
	impersonate  string
	quotaProject string
}

// keyName is the resource name of a CryptoKey, in parts.
type keyName struct{ project, location, ring, id string }

// String returns the resource name, as the API has it.
func (k keyName) String() string { return k.place() + "/keyRings/" + k.ring + "/cryptoKeys/" + k.id }

// place returns the resource name of the location.
func (k keyName) place() string { return "projects/" + k.project + "/locations/" + k.location }

// version returns the resource name of a version.
func (k keyName) version(number string) string { return k.String() + "/cryptoKeyVersions/" + number }

// number returns the number of a version that is named in full, and false if name
// is not that of a version of this key.
func (k keyName) number(name string) (string, bool) {
	number, ok := strings.CutPrefix(name, k.version(""))
	return number, ok && versionPattern.MatchString(number)
}

var (
	// Names of rings and keys: CreateKeyRing and CreateCryptoKey, Cloud KMS API
	// reference. A project's ID may carry a domain or a universe, before a colon.
	keyPattern     = regexp.MustCompile(`^projects/([a-z0-9:.-]{1,100})/locations/([a-z0-9-]{1,63})/keyRings/([a-zA-Z0-9_-]{1,63})/cryptoKeys/([a-zA-Z0-9_-]{1,63})(/cryptoKeyVersions/.*)?$`)
	numberPattern  = regexp.MustCompile(`^[0-9]+$`)
	versionPattern = regexp.MustCompile(`^[1-9][0-9]{0,18}$`)
	accountPattern = regexp.MustCompile(`^[a-zA-Z0-9.-]{1,64}@[a-zA-Z0-9.:-]{1,190}$`)
	projectPattern = regexp.MustCompile(`^[a-z0-9:.-]{1,100}$`)
)

var errKey = errors.New("the key is not one of Cloud KMS: write gcpkms:///projects/PROJECT/locations/LOCATION/keyRings/RING/cryptoKeys/KEY")

// parse checks everything that a key URI says, and tells all mistakes at once.
func parse(uri core.KeyURI) (settings, error) {
	s := settings{
		file: uri.Options[optionFile], impersonate: uri.Options[optionImpersonate], quotaProject: uri.Options[optionQuota],
	}
	return s, errors.Join(uri.CheckOptions(optionNames()...), remote.CheckValues(uri), s.parseName(uri.Host, uri.Path),
		s.checkCredentials(), s.parseEndpoint(uri.Options[optionEndpoint], uri.Options[optionInsecure]))
}

// parseName sets the key.
func (s *settings) parseName(host, path string) (err error) {
	switch host {
	case "":
		s.key, err = parseKey(path)
		return err
	case "projects":
		return fmt.Errorf("the key URI needs a third '/': %w", errKey)
	}
	return errors.New("the key URI names a host: write gcpkms:///projects/… with three '/', and name another endpoint by the option endpoint")
}

// optionNames lists every option.
func optionNames() []string {
	return []string{optionEndpoint, optionInsecure, optionFile, optionImpersonate, optionQuota}
}

func parseKey(path string) (keyName, error) {
	m := keyPattern.FindStringSubmatch(path)
	switch {
	case m == nil:
		return keyName{}, errKey
	case m[5] != "":
		return keyName{}, errors.New("the key URI names a version: remove /cryptoKeyVersions/…; the key's primary version wraps, and every version unwraps")
	case numberPattern.MatchString(m[1]):
		return keyName{}, errors.New("the key URI has the number of a project: write its ID, which the service answers with; gcloud projects describe NUMBER shows it")
	}
	return keyName{project: m[1], location: m[2], ring: m[3], id: m[4]}, nil
}

func (s *settings) checkCredentials() error {
	switch {
	case s.file != "" && !filepath.IsAbs(s.file):
		return errors.New("the option credentials_file is not an absolute path: the plugin has a working directory of its own")
	case s.impersonate != "" && !accountPattern.MatchString(s.impersonate):
		return errors.New("the option impersonate_service_account is not the email address of a service account, such as lockwood@PROJECT.iam.gserviceaccount.com")
	case s.quotaProject != "" && !projectPattern.MatchString(s.quotaProject):
		return errors.New("the option quota_project is not the ID of a project")
	}
	return nil
}

// parseEndpoint sets where the service is. Without TLS there is no authentication
// either: a token would be anyone's, and Cloud KMS answers with data keys. So
// insecure is for an emulator on this machine and nothing else.
func (s *settings) parseEndpoint(endpoint, insecure string) error {
	if insecure != "" && insecure != "true" {
		return errors.New("the option insecure is not true: write insecure=true, or leave it out")
	}
	s.insecure = insecure == "true"
	if endpoint == "" {
		if s.insecure {
			return errors.New("the option insecure is for an emulator on this machine: add endpoint=127.0.0.1:PORT, or remove it")
		}
		return nil
	}
	if strings.HasPrefix(endpoint, "http://") && !s.insecure {
		return errors.New("the option endpoint is http://: without TLS data keys would cross the network in plain text; for an emulator on this machine write endpoint=127.0.0.1:PORT and insecure=true")
	}
	host, port, err := splitEndpoint(endpoint)
	if err != nil {
		return err
	}
	s.endpoint = net.JoinHostPort(host, port)
	if !s.insecure {
		return nil
	}
	if !remote.Loopback(host) {
		return errors.New("the option insecure is allowed for 127.0.0.1, [::1] and localhost only: data keys would cross the network in plain text")
	}
	if s.file != "" || s.impersonate != "" || s.quotaProject != "" {
		return errors.New("the option insecure sends no credentials: remove credentials_file, impersonate_service_account and quota_project, or insecure")
	}
	return nil
}

var errEndpoint = errors.New("the option endpoint is not of the form HOST or HOST:PORT")

func splitEndpoint(endpoint string) (host, port string, err error) {
	_, rest, ok := strings.Cut(endpoint, "://")
	if !ok {
		rest = endpoint
	} else if !strings.HasPrefix(endpoint, "https://") && !strings.HasPrefix(endpoint, "http://") {
		return "", "", errEndpoint
	}
	rest = strings.TrimSuffix(rest, "/")
	if strings.ContainsAny(rest, "/@?# ") {
		return "", "", errEndpoint
	}
	if !strings.Contains(rest, ":") || strings.HasSuffix(rest, "]") {
		rest += ":443"
	}
	host, port, err = net.SplitHostPort(rest)
	if err != nil || host == "" || !numberPattern.MatchString(port) || len(port) > 5 {
		return "", "", errEndpoint
	}
	return host, port, nil
}
