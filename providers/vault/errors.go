package vault

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"syscall"

	"github.com/hashicorp/vault/api"

	"github.com/lockwood-kms/lockwood/core"
	"github.com/lockwood-kms/lockwood/providers/remote"
)

// failure is a refusal in our words. It wraps a sentinel and nothing of the
// server's or the library's: their texts may quote a request.
type failure struct {
	remote.ServiceError
	op     operation
	status int // 0 if there was no answer
}

// forbidden reports whether err refuses a request because of its token: a right is
// missing, or the token has expired. Where the token is what a request is about, that
// is a 400.
func forbidden(err error) bool {
	f, ok := errors.AsType[*failure](err)
	if !ok || f.op.kind == loggingIn || !errors.Is(f.Means, core.ErrKeyDenied) {
		return false
	}
	return f.status == http.StatusForbidden || f.status == http.StatusBadRequest && f.op.kind&(asking|session) != 0
}

// status returns the HTTP status of a failure, or 0.
func status(err error) int {
	if f, ok := errors.AsType[*failure](err); ok {
		return f.status
	}
	return 0
}

// explain turns what the library returned into ours.
func (s *settings) explain(ctx context.Context, op operation, resp *api.Response, err error) error {
	if ctx.Err() != nil { // nobody answered in time, whatever the library made of it
		return remote.NoAnswer(ctx, "Vault", op.name)
	}
	f := &failure{op: op}
	refused, answered := errors.AsType[*api.ResponseError](err)
	switch {
	case answered:
		f.status = refused.StatusCode
		f.Answer = lookUp(op, refused)
		f.Remedy = s.fill(op, f.Remedy)
		f.Text = fmt.Sprintf("Vault answered %d to %s at %s", f.status, op.name, op.path)
	case resp != nil:
		f.status = resp.StatusCode
		f.Answer = remote.Unavailable("a redirect that was not followed, or the second in a row: let the address lead to the active node, and set its api_addr")
		f.Text = fmt.Sprintf("Vault answered %d to %s at %s", f.status, op.name, op.path)
	default:
		f.Answer = remote.Unavailable(unreachable(err))
		f.Text = fmt.Sprintf("Vault at %s cannot be reached for %s", s.address, op.name)
	}
	if forbidden(f) {
		f.Remedy = s.missing(op)
	}
	if f.Remedy != "" {
		f.Text += ": " + f.Remedy
	}
	if f.Means != nil {
		f.Text += ": " + f.Means.Error()
	}
	if resp == nil {
		return f
	}
	return remote.Later(f, remote.RetryAfter(resp.Header))
}

// doubt takes a denial back that the auth method may not mean. Kubernetes logins are
// refused with 403 as long as Vault cannot reach the cluster, in the words in which it
// refuses a token. Where the same login succeeded before in this process, that is the
// likelier reason, and the ring's outage budget bounds how long it is believed.
func (s *settings) doubt(err error) error {
	f, ok := errors.AsType[*failure](err)
	if !ok || s.auth != authKubernetes || f.op.kind != loggingIn || f.status != http.StatusForbidden || !errors.Is(f.Means, core.ErrKeyDenied) {
		return err
	}
	doubted := *f
	doubted.Answer = remote.Unavailable("")
	doubted.Text = fmt.Sprintf("Vault answered %d to %s at %s, which it answered before: it may not reach the cluster now; if it does, %s: %v",
		f.status, f.op.name, f.op.path, f.Remedy, core.ErrUnavailable)
	return &doubted
}

// wrappedToken is the beginning of a token, which no secret ID of Vault's own has.
var wrappedToken = regexp.MustCompile(`^(?:hv[bsr]\.|[sbr]\.[A-Za-z0-9]{20})`)

// nameWrapped adds to a refused login that its secret ID is none.
func (s *settings) nameWrapped(secretID string, err error) error {
	f, ok := errors.AsType[*failure](err)
	if !ok || !errors.Is(f.Means, core.ErrKeyDenied) || !wrappedToken.MatchString(secretID) {
		return err
	}
	named := *f
	named.Text = fmt.Sprintf("Vault answered %d to %s at %s: the file of secret_id_file holds a token and no secret ID; if it wraps the response with one, write what this prints into the file: VAULT_TOKEN=$(cat %s) vault unwrap -field=secret_id: %v",
		f.status, f.op.name, f.op.path, s.secretIDFile, f.Means)
	return &named
}

// lookUp finds the meaning of an answer. An answer below 500 whose body is not in
// Vault's form came from something else, which cannot speak for the key.
func lookUp(op operation, refused *api.ResponseError) remote.Answer {
	texts := strings.ToLower(strings.Join(refused.Errors, "\n"))
	foreign := refused.RawError && strings.TrimSpace(texts) != textNoSpace
	if foreign && refused.StatusCode < http.StatusInternalServerError && refused.StatusCode != http.StatusTooManyRequests {
		return remote.Unavailable(hintUnknown)
	}
	for _, r := range rules {
		if r.on&op.kind != 0 && r.status == refused.StatusCode && r.fits(texts) {
			return r.Answer
		}
	}
	return remote.Unavailable(hintUnknown)
}

func (r *rule) fits(texts string) bool {
	return r.says == nil || slices.ContainsFunc(r.says, func(text string) bool { return strings.Contains(texts, text) })
}

// fill puts the key URI's words into a remedy.
func (s *settings) fill(op operation, remedy string) string {
	refused := hintRole
	if s.auth == authAppRole {
		refused = hintAppRole
	}
	remedy = strings.ReplaceAll(remedy, "{refused}", refused)
	return strings.NewReplacer("{mount}", s.mount, "{name}", s.name, "{key}", s.keyPath(), "{where}", s.where(),
		"{space}", s.space(op), "{auth}", s.authMount, "{method}", s.auth, "{path}", op.path).Replace(remedy)
}

// missing names the right that a 403 asks for, and the policy that grants it.
func (s *settings) missing(op operation) string {
	var b strings.Builder
	if op.capability != "" {
		fmt.Fprintf(&b, "the token lacks the capability %q on %s%s: add to its policy: %s", op.capability, op.path, s.where(), s.stanza(op))
	} else {
		b.WriteString("the token is refused")
	}
	if op.kind == wrapping {
		fmt.Fprintf(&b, "; a key that does not exist is refused in the same way")
	}
	if s.namespace != "" {
		fmt.Fprintf(&b, "; a namespace that does not exist may be refused so as well")
	}
	if s.auth == authToken {
		fmt.Fprintf(&b, "; or the token in %s has expired or was revoked: write a new one into the file", s.tokenFile)
	}
	return b.String()
}

// certificateProblem reports whether the server's certificate, or ours, is why
// there is no connection. Asking again does not help.
func certificateProblem(err error) bool {
	if _, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return true
	}
	_, alert := errors.AsType[tls.AlertError](err)
	return alert || errors.Is(err, errClientCert) || tlsAlert(err)
}

// tlsAlert reports whether the server ended the TLS handshake with an alert, which
// crypto/tls returns as an error without a type.
func tlsAlert(err error) bool {
	op, ok := errors.AsType[*net.OpError](err)
	return ok && op.Op == "remote error"
}

// unreachable says why there was no answer. The texts of the network hold no
// secret; those of a protocol may quote what was received, and are left out.
func unreachable(err error) string {
	if remedy := tlsRemedy(err); remedy != "" {
		return remedy
	}
	if e, ok := errors.AsType[*net.DNSError](err); ok {
		return "the name of the host cannot be resolved: " + e.Err
	}
	switch {
	case errors.Is(err, errPlainRedirect):
		return "it redirects to plain HTTP: set api_addr of the active node to its https:// address"
	case errors.Is(err, syscall.ECONNREFUSED):
		return "nobody listens there"
	}
	if e, ok := errors.AsType[*net.OpError](err); ok {
		return e.Error()
	}
	return "the connection failed, or was closed without an answer"
}

func tlsRemedy(err error) string {
	if e, ok := errors.AsType[x509.CertificateInvalidError](err); ok && e.Reason == x509.Expired {
		return "its certificate has expired or is not valid yet: renew it, or correct the clock of this machine"
	}
	if _, ok := errors.AsType[x509.HostnameError](err); ok {
		return "its certificate is not for the host of the key URI: write a name that is in the certificate, or add tls_server_name"
	}
	if _, ok := errors.AsType[x509.UnknownAuthorityError](err); ok {
		return "its certificate is signed by an authority that is not trusted here: name the authority's file with ca_cert (VAULT_CACERT is not read)"
	}
	if errors.Is(err, errClientCert) {
		return errClientCert.Error()
	}
	if tlsAlert(err) {
		return "it refused the TLS handshake: it may want a client certificate, or another: see client_cert and client_key"
	}
	if certificateProblem(err) {
		return "its certificate cannot be verified"
	}
	_, record := errors.AsType[tls.RecordHeaderError](err)
	if record || err != nil && strings.Contains(err.Error(), "HTTP response to HTTPS client") {
		return "it does not speak TLS: enable TLS there, or, for a listener on this machine such as Vault Agent, add tls=off"
	}
	return ""
}
