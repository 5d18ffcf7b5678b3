package tokenendpoint

import (
	"net/netip"
	"strings"
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

	{netip.MustParsePrefix("169.254.0.0/16"), ErrMetadata},     // link-local: most clouds
	{netip.MustParsePrefix("fe80::/10"), ErrMetadata},          // link-local
	{netip.MustParsePrefix("100.100.100.200/32"), ErrMetadata}, // Alibaba Cloud
	{netip.MustParsePrefix("168.63.129.16/32"), ErrMetadata},   // Azure's wire server
	{netip.MustParsePrefix("192.0.0.192/32"), ErrMetadata},     // Oracle Cloud
	{netip.MustParsePrefix("fd00:ec2::/32"), ErrMetadata},      // AWS
	{netip.MustParsePrefix("fd20:ce::254/128"), ErrMetadata},   // Google Cloud

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

func classify(addr netip.Addr) error {
	addr = addr.Unmap().WithZone("")
	for _, r := range refusedAddrs {
		if r.prefix.Contains(addr) {
			return r.reason
		}
	}
	return nil
}

// refusedNames are host names with a fixed meaning. A name that begins with a dot
// stands for itself and everything below it.
var refusedNames = map[string]error{
	".localhost":               ErrLoopback, // RFC 6761
	".localhost.localdomain":   ErrLoopback, // systemd, Red Hat's /etc/hosts
	"localhost4":               ErrLoopback,
	".localhost4.localdomain4": ErrLoopback,
	"localhost6":               ErrLoopback,
	".localhost6.localdomain6": ErrLoopback,
	"ip6-localhost":            ErrLoopback, // Debian's /etc/hosts
	"ip6-loopback":             ErrLoopback,
	"loopback":                 ErrLoopback,
	"_outbound":                ErrLoopback, // nss-myhostname
	"_localdnsstub":            ErrLoopback, // systemd-resolved
	"_localdnsproxy":           ErrLoopback,
	"broadcasthost":            ErrMulticast, // macOS's /etc/hosts

	"metadata":                    ErrMetadata,
	".metadata.google.internal":   ErrMetadata,
	".metadata.goog":              ErrMetadata,
	"instance-data":               ErrMetadata, // AWS
	".instance-data.ec2.internal": ErrMetadata,
	".metadata.tencentyun.com":    ErrMetadata,
}

// checkName judges a host name by its spelling. Trailing dots, of which a
// resolver may drop any number, do not count.
func checkName(host string) error {
	host = strings.TrimRight(strings.ToLower(host), ".")
	if reason, ok := refusedNames[host]; ok {
		return reason
	}
	for name := "." + host; name != ""; {
		if reason, ok := refusedNames[name]; ok {
			return reason
		}
		next := strings.IndexByte(name[1:], '.')
		if next < 0 {
			return nil
		}
		name = name[1+next:]
	}
	return nil
}

// badPorts are the ports that the WHATWG Fetch Standard blocks, section 2.9:
// services that might take a POST for commands of their own. Upstream's refresh
// fails on them; its deposit did not.
var badPorts = []string{
	"0", "1", "7", "9", "11", "13", "15", "17", "19", "20", "21", "22", "23", "25", "37", "42", "43",
	"53", "69", "77", "79", "87", "95", "101", "102", "103", "104", "109", "110", "111", "113", "115",
	"117", "119", "123", "135", "137", "139", "143", "161", "179", "389", "427", "465", "512", "513",
	"514", "515", "526", "530", "531", "532", "540", "548", "554", "556", "563", "587", "601", "636",
	"989", "990", "993", "995", "1719", "1720", "1723", "2049", "3659", "4045", "4190", "5060", "5061",
	"6000", "6566", "6665", "6666", "6667", "6668", "6669", "6679", "6697", "10080",
}
