package tokenendpoint

import "strings"

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

	// From inside a container, the host.
	".docker.internal":                ErrLoopback, // Docker: host, gateway, kubernetes, vm
	".for.mac.host.internal":          ErrLoopback, // Docker's older names
	".for.win.host.internal":          ErrLoopback,
	".containers.internal":            ErrLoopback, // Podman
	".lima.internal":                  ErrLoopback,
	"host.minikube.internal":          ErrLoopback,
	"host.k3d.internal":               ErrLoopback,
	"host.orb.internal":               ErrLoopback, // OrbStack
	".rancher-desktop.internal":       ErrLoopback,
	"control-plane.minikube.internal": ErrMetadata,

	".metadata.goog":                ErrMetadata, // Google Cloud
	".metadata.tencentyun.com":      ErrMetadata,
	".api.metadata.cloud.ibm.com":   ErrMetadata,
	".api.service.softlayer.com":    ErrMetadata, // IBM Cloud Classic
	".metadata.platformequinix.com": ErrMetadata,
	".metadata.packet.net":          ErrMetadata, // Equinix, before
	".metadata.exoscale.com":        ErrMetadata,
	"kubernetes":                    ErrMetadata,
	"kubernetes.default":            ErrMetadata,
	"openshift":                     ErrMetadata,
	"openshift.default":             ErrMetadata,
	"_gateway":                      ErrMetadata, // nss-myhostname: the router, CloudStack's metadata service
	"_api.internal":                 ErrMetadata, // Fly.io: machines
}

// clusterAPIs are the names of a Kubernetes cluster's API, where a pod's service
// account logs in: alone, and with the domain of the cluster after .svc.
var clusterAPIs = []string{"kubernetes.default.svc", "openshift.default.svc"}

// metadataLabels are the first labels of names that metadata services go by, alone
// or in a domain of the network that they serve.
var metadataLabels = map[string]bool{
	"metadata":            true, // Google Cloud, and Azure in metadata.azure.internal
	"instance-data":       true, // AWS: instance-data.ec2.internal, instance-data.REGION.compute.internal
	"data-server":         true, // CloudStack: data-server.cs1cloud.internal
	"rancher-metadata":    true,
	"gke-metadata-server": true,
}

// privateDomains are top-level domains that private networks use and public DNS
// does not have (RFC 6762, appendix G). A public name such as metadata.example.com
// may be an identity provider's.
var privateDomains = map[string]bool{"internal": true, "local": true, "localdomain": true, "lan": true, "home": true, "corp": true, "intranet": true, "private": true}

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
			break
		}
		name = name[1+next:]
	}
	return checkPrivateName(host)
}

// checkPrivateName judges what only the network that the service runs in resolves.
func checkPrivateName(host string) error {
	for _, api := range clusterAPIs {
		if domain, ok := strings.CutPrefix(host, api); ok && (domain == "" || domain[0] == '.') {
			return ErrMetadata
		}
	}
	last := lastLabel(host)
	if last != host && !privateDomains[last] {
		return nil
	}
	for label := range strings.SplitSeq(host, ".") {
		if metadataLabels[label] {
			return ErrMetadata
		}
	}
	return nil
}
