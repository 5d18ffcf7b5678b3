package tokenendpoint

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"strconv"
)

// refusedAddrs is read from the top: the first prefix that holds an address
// decides. An IPv4-mapped address (::ffff:0:0/96) is judged as the IPv4 address
// that the operating system connects to.
var refusedAddrs = []struct {
	prefix netip.Prefix
	reason error
}{
	{netip.MustParsePrefix("127.0.0.0/8"), ErrLoopback},
	{netip.MustParsePrefix("::1/128"), ErrLoopback},

	{netip.MustParsePrefix("0.0.0.0/8"), ErrUnspecified},
	{netip.MustParsePrefix("::/128"), ErrUnspecified},

	{netip.MustParsePrefix("169.254.0.0/16"), ErrMetadata},   // link-local: most clouds
	{netip.MustParsePrefix("fe80::/10"), ErrMetadata},        // link-local: OpenStack, Akamai
	{netip.MustParsePrefix("fd00:ec2::/32"), ErrMetadata},    // AWS: instances, EKS Pod Identity
	{netip.MustParsePrefix("fd20:ce::254/128"), ErrMetadata}, // Google Cloud
	{netip.MustParsePrefix("fd00:c1::/64"), ErrMetadata},     // Oracle Cloud: fd00:c1::a9fe:a9fe
	{netip.MustParsePrefix("fd00:42::/64"), ErrMetadata},     // Scaleway: fd00:42::42
	{netip.MustParsePrefix("fd00:100::/64"), ErrMetadata},    // Alibaba Cloud: fd00:100::100:200

	{netip.MustParsePrefix("224.0.0.0/4"), ErrMulticast},
	{netip.MustParsePrefix("255.255.255.255/32"), ErrMulticast},
	{netip.MustParsePrefix("ff00::/8"), ErrMulticast},

	// A gateway takes the IPv4 address out again and connects to it, so these
	// would carry every address above past its prefix.
	{netip.MustParsePrefix("::/96"), ErrTunnel},           // IPv4-compatible, RFC 4291
	{netip.MustParsePrefix("::ffff:0:0:0/96"), ErrTunnel}, // IPv4-translated, RFC 2765
	{netip.MustParsePrefix("64:ff9b::/96"), ErrTunnel},    // NAT64, RFC 6052
	{netip.MustParsePrefix("64:ff9b:1::/48"), ErrTunnel},  // local NAT64, RFC 8215
	{netip.MustParsePrefix("2002::/16"), ErrTunnel},       // 6to4, RFC 3056
	{netip.MustParsePrefix("2001::/32"), ErrTunnel},       // Teredo, RFC 4380
}

// metadataAddrs are the IPv4 addresses of the clouds' metadata services. No IPv6
// address may hold one of them (see embedsMetadata).
var metadataAddrs = []netip.Addr{
	netip.MustParseAddr("169.254.169.254"), // AWS, Azure, Google, Oracle, IBM, OpenStack and most others
	netip.MustParseAddr("169.254.170.2"),   // AWS: ECS tasks
	netip.MustParseAddr("169.254.170.23"),  // AWS: EKS Pod Identity
	netip.MustParseAddr("169.254.42.42"),   // Scaleway
	netip.MustParseAddr("169.254.0.23"),    // Tencent Cloud
	netip.MustParseAddr("169.254.16.9"),    // OpenNebula
	netip.MustParseAddr("100.100.100.200"), // Alibaba Cloud
	netip.MustParseAddr("100.96.0.96"),     // Volcano Engine, BytePlus
	netip.MustParseAddr("100.80.80.80"),    // UCloud
	netip.MustParseAddr("168.63.129.16"),   // Azure: WireServer
	netip.MustParseAddr("192.0.0.192"),     // Oracle Cloud Classic
}

// uniqueLocal is RFC 4193's block.
var uniqueLocal = netip.MustParsePrefix("fc00::/7")

// classify returns the reason for which an address is refused, or nil.
func classify(addr netip.Addr) error {
	addr = addr.Unmap().WithZone("")
	for _, r := range refusedAddrs {
		if r.prefix.Contains(addr) {
			return r.reason
		}
	}
	switch {
	case slices.Contains(metadataAddrs, addr), addr.Is6() && embedsMetadata(addr.As16()):
		return ErrMetadata
	case uniqueLocal.Contains(addr):
		return ErrUniqueLocal
	}
	return nil
}

// embedsMetadata reports an IPv6 address with the address of a metadata service in
// it, either in its bits (fd00:a9fe:a9fe::1 is Akamai's, and NAT64 under a prefix
// of the operator's own looks so) or in the digits of four groups
// (fd00::169:254:169:254).
func embedsMetadata(b [16]byte) bool {
	for i := range 13 {
		if slices.Contains(metadataAddrs, netip.AddrFrom4([4]byte(b[i:i+4]))) {
			return true
		}
	}
	for i := 0; i <= 8; i += 2 {
		if addr, ok := fromDigits(b[i : i+8]); ok && slices.Contains(metadataAddrs, addr) {
			return true
		}
	}
	return false
}

// fromDigits reads four groups of an IPv6 address as the decimals of an IPv4
// address.
func fromDigits(groups []byte) (netip.Addr, bool) {
	var b [4]byte
	for i := range b {
		group := strconv.FormatUint(uint64(binary.BigEndian.Uint16(groups[2*i:])), 16)
		n, err := strconv.ParseUint(group, 10, 8)
		if err != nil {
			return netip.Addr{}, false
		}
		b[i] = byte(n)
	}
	return netip.AddrFrom4(b), true
}
