package httpapi

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"runtime/debug"
	"time"

	"github.com/lockwood-kms/lockwood/httpapi/internal/wire"
)

// The rest of a body whose request was refused is read, and thrown away, so that the
// client gets to see the answer: for refusedBodyTime, and up to maxRefused bytes. Of a
// body that is known to be longer nothing is read.
const (
	refusedBodyTime = 5 * time.Second
	maxRefused      = 256 << 10
)

// exchange is one request while it is served.
type exchange struct {
	*http.Request // its context has the request ID, the client and the deadline
	route         string
	server        string // the MCP server ID in the path
	caller        caller
	denial        denial
	claim         *claim // what the caller's request holds
	w             http.ResponseWriter
}

// readUntil has reading the body fail from then on; zero is never.
func (x *exchange) readUntil(t time.Time) {
	_ = http.NewResponseController(x.w).SetReadDeadline(t) // fails with the writer of a test
}

// ServeHTTP implements http.Handler. A client that hangs up, or only says that it
// sends no more, cancels nothing: whatever was begun is finished, in RequestTimeout.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	start := time.Now()
	info := &requestInfo{client: clientOf(r, s.opts.TrustedProxies)}
	info.id = requestID(r.Header.Get("X-Request-Id"), info.client.trusted)
	ctx, cancel := context.WithTimeout(withRequestInfo(context.WithoutCancel(r.Context()), info), s.opts.RequestTimeout)
	defer cancel()

	x := &exchange{Request: r.WithContext(ctx), w: w}
	x.route, x.server = matchRoute(targetPath(r.RequestURI))
	if !s.offers(x.route) {
		x.route, x.server = routeOther, ""
	}
	defer func() {
		x.claim.leave()
		wire.Answered(ctx)
	}()
	resp := s.recovered(x)

	h := w.Header()
	h["X-Executor-Version"] = []string{s.opts.Version}
	h["X-Request-Id"] = []string{info.id}
	h["Cache-Control"] = []string{"no-store"}
	h["X-Content-Type-Options"] = []string{"nosniff"}
	if x.route == routeExchange {
		h["Pragma"] = []string{"no-cache"} // RFC 6749, section 5.1
	}
	if s.State() == StateDraining {
		h["Connection"] = []string{"close"} // come back to another instance
	}
	if resp.status >= 400 && r.ContentLength != 0 {
		discardBody(w, r, start.Add(refusedBodyTime))
	}
	err := resp.write(w)
	s.record(x, resp.status, time.Since(start))
	if err != nil {
		s.failed(x, err)
		panic(http.ErrAbortHandler) // the client shall not take the answer for complete
	}
	// net/http reads the rest of the body first. While that and the answer take their
	// time, the request counts as one of its user's.
	_ = http.NewResponseController(w).Flush() // the client may be gone
}

// discardBody reads the rest of a refused body. net/http does so too, but not where the
// connection closes after the answer. A client that waits for leave to send gets none.
func discardBody(w http.ResponseWriter, r *http.Request, deadline time.Time) {
	if http.NewResponseController(w).SetReadDeadline(deadline) != nil {
		return // the writer of a test, whose body cannot be bounded
	}
	limit := int64(maxRefused)
	switch {
	case r.Header.Get("Expect") != "", r.ContentLength > maxRefused && !r.Close:
		return // net/http ends the connection gently
	case r.ContentLength > maxRefused:
		limit = 0
	}
	// Beyond the limit it has net/http end the connection gently here too.
	_, _ = io.Copy(io.Discard, http.MaxBytesReader(w, r.Body, limit))
}

// recovered serves x and turns a panic into a 500. The log gets the type of the
// panic's value and the stack, but not the value, which may quote the request.
func (s *Server) recovered(x *exchange) (resp response) {
	defer func() {
		v := recover()
		if v == nil {
			return
		}
		s.opts.Logger.LogAttrs(x.Context(), slog.LevelError, "panic while serving",
			slog.String("route", x.route), slog.String("panic", fmt.Sprintf("%T", v)), slog.String("stack", string(debug.Stack())))
		if resp = internal; x.route == routeExchange {
			resp = notRead(internal)
		}
	}()
	return s.serve(x)
}

// serve answers x. What the head of the request tells decides first: token, rate,
// route. Only then is a body read, and its encoding and length are judged before
// that.
func (s *Server) serve(x *exchange) response {
	if x.route == routeHealth && x.Method == http.MethodGet {
		return s.health()
	}
	if x.route == routeExchange && x.Method == http.MethodPost {
		return s.exchangeToken(x) // the one route whose token is in its body
	}
	if x.caller, x.denial = s.auth.authenticate(x.Header); x.denial != denialNone {
		return unauthorized
	}
	if wait := s.limiter.wait(x.caller.userID); wait > 0 {
		return tooMany.after(wait)
	}
	if x.claim = s.shares.enter(x.caller.userID); x.claim == nil {
		return tooMany.after(time.Second)
	}
	// Not before: a user holds no more places than requests.
	wire.Vouch(x.Context())
	return s.dispatch(x)
}

// allowed are the methods of each route, as the Allow header lists them.
var allowed = map[string]string{
	routeCredentials: "GET, POST",
	routeCredential:  "DELETE",
	routeAccessToken: "POST",
	routeTools:       "HEAD, GET",
	routeExchange:    "POST",
}

// offers reports whether the routes that may be left out have the route among them.
func (s *Server) offers(route string) bool {
	switch route {
	case routeAccessToken, routeExchange:
		return s.opts.AccessTokens != nil
	case routeTools:
		return s.opts.Tools != nil
	}
	return true
}

// dispatch answers a request whose caller is known.
func (s *Server) dispatch(x *exchange) response {
	switch {
	case x.route == routeCredentials && x.Method == http.MethodPost:
		return s.deposit(x)
	case x.route == routeCredentials && x.Method == http.MethodGet:
		return s.list(x)
	case x.route == routeCredential && x.Method == http.MethodDelete:
		return s.disconnect(x)
	case x.route == routeAccessToken && x.Method == http.MethodPost:
		return s.accessToken(x)
	case x.route == routeTools && (x.Method == http.MethodGet || x.Method == http.MethodHead):
		return s.listTools(x)
	}
	return withoutRoute(x.Method, allowed[x.route])
}

// withoutRoute answers as upstream's router does; allow is empty for an unknown
// path.
func withoutRoute(method, allow string) response {
	var resp response
	switch {
	case !implemented(method):
		resp = textResponse(http.StatusNotImplemented)
	case allow == "":
		return notFound
	case method == http.MethodOptions:
		resp = response{status: http.StatusOK, contentType: typeText}
	default:
		resp = textResponse(http.StatusMethodNotAllowed)
	}
	resp.allow = allow
	return resp
}

func implemented(method string) bool {
	switch method {
	case http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut,
		http.MethodPatch, http.MethodDelete, http.MethodOptions:
		return true
	}
	return false
}

// failed logs err and returns the response to it.
func (s *Server) failed(x *exchange, err error) response {
	resp := failure(err)
	level := slog.LevelError
	if resp.status < 500 || errors.Is(err, errGone) {
		level = slog.LevelInfo // the client's doing
	}
	s.opts.Logger.LogAttrs(x.Context(), level, "request failed",
		slog.String("route", x.route), slog.Int64("user_id", x.caller.userID), slog.Any("error", err))
	return resp
}

// record counts and logs an answered request: at level debug if it went well, for
// deposits and disconnects have their audit line. The log names the route and not the
// path or the query, which may hold a token.
func (s *Server) record(x *exchange, status int, took time.Duration) {
	s.metrics.observe(x.route, x.Method, status, took)
	if x.denial == denialNone && x.route == routeExchange && status >= 400 && x.caller.userID == nobody {
		x.denial = denialUnidentified
	}
	if x.denial != denialNone {
		s.recordDenial(x, status, took)
		return
	}
	level := slog.LevelDebug
	if status >= 400 {
		level = slog.LevelInfo
	}
	if !s.opts.Logger.Enabled(x.Context(), level) {
		return
	}
	s.opts.Logger.LogAttrs(x.Context(), level, "request",
		slog.String("method", methodLabel(x.Method)), slog.String("route", x.route), slog.Int("status", status),
		slog.String("took", took.Round(time.Microsecond).String()), slog.Int64("user_id", x.caller.userID))
}

// recordDenial logs a request without a valid token, or leaves it out: nobody
// without a token fills the log.
func (s *Server) recordDenial(x *exchange, status int, took time.Duration) {
	s.metrics.denials.WithLabelValues(string(x.denial)).Inc()
	left, ok := s.denied.sample()
	if !ok {
		return
	}
	s.opts.Logger.LogAttrs(x.Context(), slog.LevelInfo, "request",
		slog.String("method", methodLabel(x.Method)), slog.String("route", x.route), slog.Int("status", status),
		slog.String("took", took.Round(time.Microsecond).String()), slog.String("reason", string(x.denial)), slog.Int64("not_logged", left))
}
