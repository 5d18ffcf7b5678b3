package vault

import (
	"errors"
	"fmt"
	"net"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/lockwood-kms/lockwood/core"
	"github.com/lockwood-kms/lockwood/providers/remote"
)

// Scheme is the scheme of this provider's key URIs, and the prefix of its KEK IDs.
const Scheme = "vault"

// The auth methods of the option auth.
const (
	authToken      = "token"
	authAppRole    = "approle"
	authKubernetes = "kubernetes"
	authJWT        = "jwt"
)

// serviceAccountToken is where Kubernetes puts a pod's token.
const serviceAccountToken = "/var/run/secrets/kubernetes.io/serviceaccount/token"

// maxKeySize bounds the key part of a KEK ID, so that a version fits behind it.
const maxKeySize = core.MaxKEKIDSize - 16

// settings is a key URI, checked.
type settings struct {
	address string // HOST:PORT, lower case
	plain   bool   // no TLS; on this machine only

	namespace, mount, name string

	auth, authMount, authNamespace string
	role                           string
	tokenFile                      string
	roleIDFile, secretIDFile       string
	jwtFile                        string

	caCert, clientCert, clientKey, serverName string
}

// options are the names that a key URI may have behind the '?'.
var options = []string{
	"auth", "auth_mount", "auth_namespace", "ca_cert", "client_cert", "client_key", "jwt_file", "namespace",
	"role", "role_id_file", "secret_id_file", "tls", "tls_server_name", "token_file",
}

var (
	// Names of keys are what the transit engine takes for one.
	namePattern = regexp.MustCompile(`^[A-Za-z0-9_](?:[A-Za-z0-9_.-]*[A-Za-z0-9_])?$`)
	// Segments of mounts and namespaces; '#' and '%' would be ambiguous in a KEK ID.
	segmentPattern = regexp.MustCompile(`^[A-Za-z0-9_.~@+=,-]+$`)
	rolePattern    = regexp.MustCompile(`^[A-Za-z0-9_.:-]{1,256}$`)
	serverPattern  = regexp.MustCompile(`^[A-Za-z0-9.-]{1,253}$`)
)

// parse checks everything that a key URI says, and tells all mistakes at once.
func parse(uri core.KeyURI) (settings, error) {
	s := settings{
		role: uri.Options["role"], tokenFile: uri.Options["token_file"], roleIDFile: uri.Options["role_id_file"],
		secretIDFile: uri.Options["secret_id_file"], jwtFile: uri.Options["jwt_file"], caCert: uri.Options["ca_cert"],
		clientCert: uri.Options["client_cert"], clientKey: uri.Options["client_key"], serverName: uri.Options["tls_server_name"],
	}
	err := errors.Join(uri.CheckOptions(options...), remote.CheckValues(uri), s.parseAddress(uri.Host), s.parseTLS(uri.Options["tls"]), s.parseKey(uri.Path), s.parseNamespaces(uri.Options), s.parseAuth(uri.Options))
	if err == nil && len(s.key()) > maxKeySize {
		err = fmt.Errorf("the address, the namespace, the mount and the name have more than %d bytes together", maxKeySize)
	}
	return s, err
}

// key names the KEK: the address, and the path of the key as the API has it, where
// a namespace is the beginning of the path.
func (s *settings) key() string { return Scheme + ":" + s.address + "/" + s.full(s.keyPath()) }

// full is a path with its namespace before it.
func (s *settings) full(path string) string {
	if s.namespace == "" {
		return path
	}
	return s.namespace + "/" + path
}

func (s *settings) keyPath() string { return s.mount + "/keys/" + s.name }

var errAddress = errors.New("the key URI does not say where Vault is: write vault://HOST:PORT/MOUNT/keys/NAME with the port, such as vault://vault.example.com:8200/transit/keys/forest (VAULT_ADDR is not read)")

func (s *settings) parseAddress(host string) error {
	name, port, err := net.SplitHostPort(host)
	if err != nil || name == "" || strings.ContainsAny(name, "%#/ ") {
		return errAddress
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return errAddress
	}
	s.address = strings.ToLower(host)
	return nil
}

// parseTLS permits plain HTTP to this machine alone: what crosses it is data keys
// and tokens.
func (s *settings) parseTLS(mode string) error {
	switch mode {
	case "", "on":
	case "off":
		if !remote.Loopback(s.address) {
			return errors.New("the option tls=off is for an address of this machine, such as a Vault Agent on 127.0.0.1: data keys and tokens would cross the network in plain text; remove it")
		}
		if s.caCert != "" || s.clientCert != "" || s.clientKey != "" || s.serverName != "" {
			return errors.New("the option tls=off leaves no use for ca_cert, client_cert, client_key and tls_server_name: remove it, or them")
		}
		s.plain = true
	default:
		return errors.New("the option tls is on (the default) or off")
	}
	if (s.clientCert == "") != (s.clientKey == "") {
		return errors.New("the options client_cert and client_key belong together: give both")
	}
	if s.serverName != "" && !serverPattern.MatchString(s.serverName) {
		return errors.New("the option tls_server_name is not the name of a host")
	}
	return nil
}

func (s *settings) parseKey(path string) error {
	if strings.HasPrefix(path, "v1/") {
		return errors.New("the path begins with v1/, which belongs to the address of the API: leave it out")
	}
	mount, name, ok := cutLast(path, "/keys/")
	if !ok || !namePattern.MatchString(name) || !validPath(mount) {
		return errors.New("the key is not one of a transit engine: write vault://HOST:PORT/MOUNT/keys/NAME, with the path where the engine is mounted (often transit) and the key's name")
	}
	s.mount, s.name = mount, name
	return nil
}

func cutLast(s, sep string) (before, after string, found bool) {
	i := strings.LastIndex(s, sep)
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+len(sep):], true
}

// validPath reports whether path is segments without one that is empty or climbs.
func validPath(path string) bool {
	for segment := range strings.SplitSeq(path, "/") {
		if !segmentPattern.MatchString(segment) || strings.Trim(segment, ".") == "" {
			return false
		}
	}
	return true
}

func (s *settings) parseNamespaces(given map[string]string) error {
	s.namespace = strings.Trim(given["namespace"], "/")
	s.authNamespace = s.namespace
	if other, ok := given["auth_namespace"]; ok {
		// "root" or "/" is the namespace above all.
		s.authNamespace = strings.Trim(other, "/")
		if s.authNamespace == "root" {
			s.authNamespace = ""
		}
	}
	for _, namespace := range []string{s.namespace, s.authNamespace} {
		if namespace != "" && !validPath(namespace) {
			return errors.New("the options namespace and auth_namespace are paths such as team-a or org/team-a")
		}
	}
	return nil
}

// notRead tells, by the option that is missing, which variable is not read in its place.
var notRead = map[string]string{"token_file": " (VAULT_TOKEN is not read: write the token into a file)"}

// parseAuth checks that the auth method has the options it needs and no others, so
// that a file that is never read is not taken for the credential in use.
func (s *settings) parseAuth(given map[string]string) error {
	s.auth = given["auth"]
	if s.auth == "" {
		s.auth = authToken
	}
	wants := map[string]struct{ must, may []string }{
		authToken:      {must: []string{"token_file"}, may: []string{"auth_namespace"}},
		authAppRole:    {must: []string{"role_id_file"}, may: []string{"secret_id_file", "auth_mount", "auth_namespace"}},
		authKubernetes: {must: []string{"role"}, may: []string{"jwt_file", "auth_mount", "auth_namespace"}},
		authJWT:        {must: []string{"role", "jwt_file"}, may: []string{"auth_mount", "auth_namespace"}},
	}
	want, ok := wants[s.auth]
	if !ok {
		return errors.New("the option auth is token (the default), approle, kubernetes or jwt")
	}
	for _, name := range want.must {
		if given[name] == "" {
			return fmt.Errorf("auth=%s needs the option %s; options name files, and never hold a secret%s", s.auth, name, notRead[name])
		}
	}
	for _, name := range []string{"token_file", "role_id_file", "secret_id_file", "jwt_file", "role", "auth_mount", "auth_namespace"} {
		if given[name] != "" && !slices.Contains(want.must, name) && !slices.Contains(want.may, name) {
			return fmt.Errorf("the option %s has no meaning with auth=%s: remove it, or choose another auth", name, s.auth)
		}
	}
	if s.role != "" && !rolePattern.MatchString(s.role) {
		return errors.New("the option role is not the name of a role")
	}
	if s.auth == authKubernetes && s.jwtFile == "" {
		s.jwtFile = serviceAccountToken
	}
	return s.parseAuthMount(given["auth_mount"])
}

func (s *settings) parseAuthMount(mount string) error {
	s.authMount = strings.TrimPrefix(strings.Trim(mount, "/"), "auth/")
	if s.authMount == "" {
		s.authMount = s.auth
	}
	if !validPath(s.authMount) {
		return errors.New("the option auth_mount is the path where the auth method is enabled, such as approle or k8s/prod")
	}
	return nil
}
