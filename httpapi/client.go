package httpapi

import (
	"context"
	"log/slog"
	"net/http"
	"net/netip"
	"strings"
)

// client is where a request comes from.
type client struct {
	// peer is the other end of the connection.
	peer netip.Addr
	// forwarded is the client that trusted proxies name, or the zero Addr.
	forwarded netip.Addr
	// trusted says that peer is a trusted proxy.
	trusted bool
}

// clientOf finds out where r comes from. X-Forwarded-For is read from its end as
// far as trusted proxies wrote it: the first address that is none of them is the
// client. Whatever stands before it may be made up.
func clientOf(r *http.Request, proxies []netip.Prefix) client {
	address, _ := netip.ParseAddrPort(r.RemoteAddr)        // the zero Addr if it is no TCP address
	c := client{peer: address.Addr().Unmap().WithZone("")} // a prefix holds no address with a zone
	c.trusted = contains(proxies, c.peer)
	if !c.trusted {
		return c
	}
	hops := strings.Split(strings.Join(r.Header["X-Forwarded-For"], ","), ",")
	for i := len(hops) - 1; i >= 0; i-- {
		hop, err := parseHop(strings.TrimSpace(hops[i]))
		if err != nil {
			break
		}
		c.forwarded = hop
		if !contains(proxies, hop) {
			break
		}
	}
	return c
}

// parseHop parses an address in X-Forwarded-For, behind which some proxies write
// a port.
func parseHop(s string) (netip.Addr, error) {
	if withPort, err := netip.ParseAddrPort(s); err == nil {
		return withPort.Addr().Unmap().WithZone(""), nil
	}
	addr, err := netip.ParseAddr(strings.Trim(s, "[]"))
	return addr.Unmap().WithZone(""), err // a zone is text of the client's
}

func contains(prefixes []netip.Prefix, addr netip.Addr) bool {
	for _, prefix := range prefixes {
		if prefix.Contains(addr) {
			return true
		}
	}
	return false
}

// requestInfo is what the log says of a request in every line.
type requestInfo struct {
	id     string
	client client
}

type requestInfoKey struct{}

func withRequestInfo(ctx context.Context, info *requestInfo) context.Context {
	return context.WithValue(ctx, requestInfoKey{}, info)
}

// RequestID returns the ID of the request that ctx belongs to, or "".
func RequestID(ctx context.Context) string {
	if info, ok := ctx.Value(requestInfoKey{}).(*requestInfo); ok {
		return info.id
	}
	return ""
}

// LogHandler returns a handler that adds to the records logged with the context of
// a request, in whatever package, and hands them on to h. It adds request_id;
// client, the address of the other end of the connection; and forwarded_for, the
// client's address as trusted proxies say, if there are any.
func LogHandler(h slog.Handler) slog.Handler { return logHandler{h} }

type logHandler struct{ slog.Handler }

func (h logHandler) Handle(ctx context.Context, r slog.Record) error {
	info, ok := ctx.Value(requestInfoKey{}).(*requestInfo)
	if !ok {
		return h.Handler.Handle(ctx, r)
	}
	r = r.Clone()
	r.AddAttrs(slog.String("request_id", info.id))
	if info.client.peer.IsValid() {
		r.AddAttrs(slog.String("client", info.client.peer.String()))
	}
	if info.client.forwarded.IsValid() {
		r.AddAttrs(slog.String("forwarded_for", info.client.forwarded.String()))
	}
	return h.Handler.Handle(ctx, r)
}

func (h logHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return logHandler{h.Handler.WithAttrs(attrs)}
}

func (h logHandler) WithGroup(name string) slog.Handler {
	return logHandler{h.Handler.WithGroup(name)}
}
