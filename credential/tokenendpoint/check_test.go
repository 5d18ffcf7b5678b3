package tokenendpoint

import (
	"errors"
	"net/netip"
	"strings"
	"testing"
)

// endpoints are URLs and the reason for which each is refused, or nil.
var endpoints = map[string]error{
	"https://idp.example.com/token":                                nil,
	"HTTPS://IDP.EXAMPLE.COM/Token":                                nil,
	"https:idp.example.com/token":                                  nil,
	"\\https://idp.example.com":                                    ErrURL,
	"https:\\\\idp.example.com\\token":                             nil,
	" \thttps://idp.example.com/token\n":                           nil,
	"https://idp.exa\nmple.com/token":                              nil,
	"https://idp.example.com:8443/token":                           nil,
	"https://idp.example.com:65535/":                               nil,
	"https://idp.example.com:443/":                                 nil,
	"https://auth.localhost.example.com/":                          nil,
	"https://notlocalhost/":                                        nil,
	"https://localhost4.example.com/":                              nil,
	"https://metadata.example.com/":                                nil,
	"https://b\u00fccher.example/token":                            nil,
	"https://idp.example.com./token":                               nil,
	"https://a..b/":                                                nil,
	"https://10.0.0.5/":                                            nil,
	"https://192.168.1.10:8443/token":                              nil,
	"https://172.16.0.1/":                                          nil,
	"https://100.64.0.1/":                                          nil,
	"https://[fc00::1]/":                                           ErrUniqueLocal,
	"https://[fdff:ffff::1]/":                                      ErrUniqueLocal,
	"https://[fd12:3456:789a::1]:8443/":                            ErrUniqueLocal,
	"https://[fec0::1]/":                                           nil,
	"https://[fbff::1]/":                                           nil,
	"https://[fe00::1]/":                                           nil,
	"https://[2001:db8::1]/":                                       nil,
	"https://[::ffff:10.0.0.1]/":                                   nil,
	"https://169.255.0.1/":                                         nil,
	"https://168.63.129.17/":                                       nil,
	"https://idp.example.com/\u0001?a=b#c":                         nil,
	"":                                                             ErrURL,
	"not a url":                                                    ErrURL,
	"/token":                                                       ErrURL,
	"https://":                                                     ErrURL,
	"https://idp .example.com/":                                    ErrURL,
	"https://1.2.3.4.5/":                                           ErrURL,
	"https://4294967296/":                                          ErrURL,
	"https://[fe80::1%25eth0]/":                                    ErrURL,
	"https://[[::ffff:12.0.0.1]/t":                                 ErrURL,
	"https://[2001:db8::1]]/":                                      ErrURL,
	"https://[2001:db8::1/":                                        ErrURL,
	"https://%5B2001:db8::1]/":                                     ErrURL,
	"https://[2001:db8::1%eth0]/":                                  ErrURL,
	"https://10.-0.0.1/":                                           ErrURL,
	"https://10.0.0.+1/":                                           ErrURL,
	"https://127.0.0.-1/":                                          ErrURL,
	"https://0-1/":                                                 ErrURL,
	"https://10.0.0.\uff0b1/":                                      ErrURL,
	"https://10.0.0.%2b1/":                                         ErrURL,
	"https://10..0.1/":                                             ErrURL,
	"https://127.0.0.1../":                                         ErrURL,
	"https://idp.example.09/":                                      ErrURL,
	"https://idp.example.0x/":                                      ErrURL,
	"https://./":                                                   ErrURL,
	"https://idp.example.com/a^b":                                  ErrURL,
	"https://idp%.example.com/":                                    ErrURL,
	"https://idp%zz.example.com/":                                  ErrURL,
	"https://idp.ex%2fample.com/":                                  ErrURL,
	"https://idp%ff.example.com/":                                  ErrURL,
	"https://xn--/":                                                ErrURL,
	"https://xn--a/":                                               ErrURL,
	"https://xn--a-.example/":                                      ErrURL,
	"https://xn--localhost-/":                                      ErrURL,
	"https://xn--ls8h.example/":                                    ErrURL,
	"https://xn--xkow\u03c2-844p.example/":                         ErrURL,
	"https://stra\u1e9ee.example/":                                 ErrURL,
	"https://\u0628\u0870.example/":                                ErrURL,
	"https://idp.example.com\xff/":                                 ErrURL,
	"https://fu\u00dfball.example/":                                nil,
	"https://\u03b2\u03cc\u03bb\u03bf\u03c2.example/":              nil,
	"https://\u4f8b\u3048.\u30c6\u30b9\u30c8/":                     nil,
	"https://\u0909\u0926\u093e\u0939\u0930\u0923.example/":        nil,
	"https://\u0645\u062b\u0627\u0644.example/":                    nil,
	"https://\u0e15\u0e31\u0e27.example/":                          nil,
	"https://B\u00dcCHER.example/":                                 nil,
	"https://\uff29\uff24\uff30.example.com/":                      nil,
	"https://xn--bcher-kva.example/":                               nil,
	"https://XN--BCHER-KVA.example/":                               nil,
	"https://idp.exam\u00adple.com/":                               nil,
	"https://\u05d0\u05d1.example/":                                nil,
	"https://\u043f\u0440\u0438\u043c\u0435\u0440.\u0440\u0444/":   nil,
	"https://idp.example.com:99999/":                               ErrURL,
	"\ufeffhttps://idp.example.com/":                               ErrURL,
	"file:///etc/passwd":                                           ErrScheme,
	"javascript:alert(1)":                                          ErrScheme,
	"blob:https://idp.example.com/x":                               ErrScheme,
	"wss://idp.example.com/":                                       ErrScheme,
	"http://idp.example.com/token":                                 ErrHTTPS,
	"http://127.0.0.1/token":                                       ErrHTTPS,
	"https://user:pass@idp.example.com/":                           ErrUserinfo,
	"https://user@idp.example.com/":                                ErrUserinfo,
	"https://:pass@idp.example.com/":                               ErrUserinfo,
	"https://idp.example.com@127.0.0.1/":                           ErrLoopback,
	"https://idp.example.com:22/":                                  ErrPort,
	"https://idp.example.com:0/":                                   ErrPort,
	"https://idp.example.com:00025/":                               ErrPort,
	"https://idp.example.com/\x00":                                 ErrNUL,
	"\x00https://idp.example.com/":                                 ErrNUL,
	"https://localhost/":                                           ErrLoopback,
	"https://LocalHost/":                                           ErrLoopback,
	"https://localhost./":                                          ErrLoopback,
	"https://localhost../":                                         ErrLoopback,
	"https://foo.bar.localhost/":                                   ErrLoopback,
	"https://localhost.localdomain/":                               ErrLoopback,
	"https://foo.localhost.localdomain/":                           ErrLoopback,
	"https://localhost6.localdomain6/":                             ErrLoopback,
	"https://ip6-localhost/":                                       ErrLoopback,
	"https://_localdnsstub/":                                       ErrLoopback,
	"https://loc%61lhost/":                                         ErrLoopback,
	"https://\u24dbocalhost/":                                      ErrLoopback,
	"https://lo\u00adcalhost/":                                     ErrLoopback,
	"https://127.0.0.1/":                                           ErrLoopback,
	"https://127.1/":                                               ErrLoopback,
	"https://0x7f.1/":                                              ErrLoopback,
	"https://0177.0.0.1/":                                          ErrLoopback,
	"https://2130706433/":                                          ErrLoopback,
	"https://127.0.0.1./":                                          ErrLoopback,
	"https://%31%32%37.0.0.1/":                                     ErrLoopback,
	"https://\uff11\uff12\uff17.0.0.1/":                            ErrLoopback,
	"https://127\u30020\u30020\u30021/":                            ErrLoopback,
	"https://[::1]/":                                               ErrLoopback,
	"https://[::ffff:127.0.0.1]/":                                  ErrLoopback,
	"https://[::ffff:7f00:1]/":                                     ErrLoopback,
	"https://0/":                                                   ErrUnspecified,
	"https://[::]/":                                                ErrUnspecified,
	"https://[::ffff:0.0.0.0]/":                                    ErrUnspecified,
	"http://169.254.169.254/latest":                                ErrMetadata,
	"https://0xa9fea9fe/":                                          ErrMetadata,
	"https://[fe80::1]/":                                           ErrMetadata,
	"https://[fd00:ec2::254]/":                                     ErrMetadata,
	"https://[fd20:ce::254]/":                                      ErrMetadata,
	"https://100.100.100.200/":                                     ErrMetadata,
	"https://168.63.129.16/":                                       ErrMetadata,
	"https://192.0.0.192/":                                         ErrMetadata,
	"https://[::ffff:100.100.100.200]/":                            ErrMetadata,
	"https://[fd00:c1::a9fe:a9fe]/":                                ErrMetadata,
	"https://[fd00:42::42]/":                                       ErrMetadata,
	"https://[FD00:42:0:0:0:0:0:42]/":                              ErrMetadata,
	"https://[fd00:a9fe:a9fe::1]/":                                 ErrMetadata,
	"https://[fd00:100::100:200]/":                                 ErrMetadata,
	"https://[fd00:ec2::23]/":                                      ErrMetadata,
	"https://[fd99::a9fe:a9fe]/":                                   ErrMetadata,
	"https://[fd99::169.254.170.2]/":                               ErrMetadata,
	"https://[fd99::6464:64c8]/":                                   ErrMetadata,
	"https://[fd99:0:a9:fea9:fe00::]/":                             ErrMetadata,
	"https://[fd99::169:254:169:254]/":                             ErrMetadata,
	"https://[fd99::100:100:100:200:1]/":                           ErrMetadata,
	"https://[2001:db8:64::a9fe:a9fe]/":                            ErrMetadata,
	"https://[2001:db8::169:254:169:253]/":                         nil,
	"https://100.96.0.96/":                                         ErrMetadata,
	"https://100.80.80.80/":                                        ErrMetadata,
	"https://169.254.170.23/":                                      ErrMetadata,
	"https://169.254.42.42/":                                       ErrMetadata,
	"https://api.metadata.cloud.ibm.com/":                          ErrMetadata,
	"https://API.Metadata.cloud.ibm.com./":                         ErrMetadata,
	"https://iam.cloud.ibm.com/identity/token":                     nil,
	"https://api.service.softlayer.com/":                           ErrMetadata,
	"https://instance-data.eu-west-1.compute.internal/":            ErrMetadata,
	"https://instance-data.ec2.internal/":                          ErrMetadata,
	"https://metadata.azure.internal/":                             ErrMetadata,
	"https://metadata.packet.net/":                                 ErrMetadata,
	"https://metadata.platformequinix.com/":                        ErrMetadata,
	"https://metadata.exoscale.com/":                               ErrMetadata,
	"https://data-server/":                                         ErrMetadata,
	"https://data-server./":                                        ErrMetadata,
	"https://data-server.cs1cloud.internal/":                       ErrMetadata,
	"https://data-server.example.com/":                             nil,
	"https://rancher-metadata/":                                    ErrMetadata,
	"https://rancher-metadata.rancher.internal/":                   ErrMetadata,
	"https://metadata.goog/":                                       ErrMetadata,
	"https://x.metadata.goog/":                                     ErrMetadata,
	"https://metadata.tencentyun.com/":                             ErrMetadata,
	"https://gke-metadata-server/":                                 ErrMetadata,
	"https://control-plane.minikube.internal/":                     ErrMetadata,
	"https://openshift/":                                           ErrMetadata,
	"https://openshift.default/":                                   ErrMetadata,
	"https://openshift.default.svc.cluster.local/":                 ErrMetadata,
	"https://metadata.local/":                                      ErrMetadata,
	"https://metadata.localdomain/":                                ErrMetadata,
	"https://metadata.lan/":                                        ErrMetadata,
	"https://metadata.home/":                                       ErrMetadata,
	"https://metadata.corp/":                                       ErrMetadata,
	"https://metadata.intranet/":                                   ErrMetadata,
	"https://metadata.private/":                                    ErrMetadata,
	"https://vm.docker.internal/":                                  ErrLoopback,
	"https://docker.for.win.host.internal/":                        ErrLoopback,
	"https://host.lima.internal/":                                  ErrLoopback,
	"https://host.rancher-desktop.internal/":                       ErrLoopback,
	"https://host.minikube.internal/":                              ErrLoopback,
	"https://host.k3d.internal/":                                   ErrLoopback,
	"https://host.orb.internal/":                                   ErrLoopback,
	"https://" + strings.Repeat("a", 64) + ".b\u00fccher.example/": ErrURL,
	"https://_gateway/":                                            ErrMetadata,
	"https://_api.internal/":                                       ErrMetadata,
	"https://kubernetes/":                                          ErrMetadata,
	"https://kubernetes.default/":                                  ErrMetadata,
	"https://kubernetes.default.svc/":                              ErrMetadata,
	"https://kubernetes.default.svc.cluster.local/":                ErrMetadata,
	"https://openshift.default.svc/":                               ErrMetadata,
	"https://kubernetes.example.com/":                              nil,
	"https://keycloak.auth.svc.cluster.local/":                     nil,
	"https://idp.corp.internal/":                                   nil,
	"https://idp.metadata.internal/":                               ErrMetadata,
	"https://host.docker.internal/":                                ErrLoopback,
	"https://gateway.docker.internal/":                             ErrLoopback,
	"https://kubernetes.docker.internal/":                          ErrLoopback,
	"https://docker.for.mac.host.internal/":                        ErrLoopback,
	"https://host.containers.internal/":                            ErrLoopback,
	"https://docker.internal.example.com/":                         nil,
	"https://metadata.google.internal/":                            ErrMetadata,
	"https://metadata.google.internal../":                          ErrMetadata,
	"https://METADATA/":                                            ErrMetadata,
	"https://instance-data/":                                       ErrMetadata,
	"https://224.0.0.1/":                                           ErrMulticast,
	"https://255.255.255.255/":                                     ErrMulticast,
	"https://[ff02::1]/":                                           ErrMulticast,
	"https://broadcasthost/":                                       ErrMulticast,
	"https://[::127.0.0.1]/":                                       ErrTunnel,
	"https://[::ffff:0:127.0.0.1]/":                                ErrTunnel,
	"https://[64:ff9b::127.0.0.1]/":                                ErrTunnel,
	"https://[64:ff9b:1::a9fe:a9fe]/":                              ErrTunnel,
	"https://[2002:7f00:1::]/":                                     ErrTunnel,
	"https://[2001:0:4136:e378:8000::5601]/":                       ErrTunnel,
}

func TestCheck(t *testing.T) {
	for raw, want := range endpoints {
		if err := Check(raw, Options{}); !errors.Is(err, want) {
			t.Errorf("Check(%q) = %v, want %v", raw, err, want)
		}
	}
}

// TestCheckIsFast holds that no short URL keeps the parser busy: it gives up
// before the work, not after it, so the bound is on allocations and not on time.
func TestCheckIsFast(t *testing.T) {
	for raw, want := range map[string]error{
		"https://" + strings.Repeat("@", 2000) + "idp.example.com/": ErrUserinfo,
		"https://idp.example.com/" + strings.Repeat("a", maxLength): ErrURL,
	} {
		allocations := testing.AllocsPerRun(1, func() {
			if err := Check(raw, Options{}); !errors.Is(err, want) {
				t.Errorf("Check = %v, want %v", err, want)
			}
		})
		if allocations > 0 {
			t.Errorf("%.0f allocations for a URL of %d bytes", allocations, len(raw))
		}
	}
}

func TestCheckAllowLocal(t *testing.T) {
	for raw, want := range map[string]error{
		"http://localhost:8080/token":        nil,
		"http://127.0.0.1/token":             nil,
		"https://[::1]/":                     nil,
		"http://idp.example.com/token":       nil,
		"http://169.254.169.254/":            ErrMetadata,
		"https://0.0.0.0/":                   ErrUnspecified,
		"https://[::127.0.0.1]/":             ErrTunnel,
		"http://metadata/":                   ErrMetadata,
		"http://host.docker.internal/":       nil,
		"https://[fc00::1]/":                 ErrUniqueLocal,
		"ftp://localhost/":                   ErrScheme,
		"http://user@localhost/":             ErrUserinfo,
		"http://localhost:25/":               ErrPort,
		"http://localhost/\x00":              ErrNUL,
		"https://user:pass@idp.example.com/": ErrUserinfo,
	} {
		if err := Check(raw, Options{AllowLocal: true}); !errors.Is(err, want) {
			t.Errorf("Check(%q) = %v, want %v", raw, err, want)
		}
	}
}

func TestCheckAllowUniqueLocal(t *testing.T) {
	for raw, want := range map[string]error{
		"https://[fc00::1]/":                 nil,
		"https://[fd12:3456:789a::1]:8443/t": nil,
		"http://[fd12:3456:789a::1]/":        ErrHTTPS,
		"https://[fd00:ec2::254]/":           ErrMetadata,
		"https://[fd20:ce::254]/":            ErrMetadata,
		"https://[fd00:c1::a9fe:a9fe]/":      ErrMetadata,
		"https://[fd00:42::42]/":             ErrMetadata,
		"https://[fd00:a9fe:a9fe::1]/":       ErrMetadata,
		"https://[fd00:100::100:200]/":       ErrMetadata,
		"https://[fd12::169:254:169:254]/":   ErrMetadata,
		"https://[::1]/":                     ErrLoopback,
		"https://u@[fc00::1]/":               ErrUserinfo,
		"https://[fc00::1]:25/":              ErrPort,
	} {
		if err := Check(raw, Options{AllowUniqueLocal: true}); !errors.Is(err, want) {
			t.Errorf("Check(%q) = %v, want %v", raw, err, want)
		}
	}
}

// TestCanonical holds that a client connects to what was judged.
func TestCanonical(t *testing.T) {
	for raw, want := range map[string]string{
		" HTTPS:\\\\IDP.example.com:443\\to\nken": "https://idp.example.com/token",
		"https://0x0a.1/":                         "https://10.0.0.1/",
		"https://b\u00fccher.example":             "https://xn--bcher-kva.example/",
	} {
		if got, err := Canonical(raw, Options{}); err != nil || got != want {
			t.Errorf("Canonical(%q) = %q, %v, want %q", raw, got, err, want)
		}
	}
	if got, err := Canonical("https://127.1/", Options{}); got != "" || !errors.Is(err, ErrLoopback) {
		t.Errorf("Canonical of a loopback endpoint = %q, %v", got, err)
	}
}

func TestCheckAddr(t *testing.T) {
	for _, test := range []struct {
		addr string
		opts Options
		want error
	}{
		{"93.184.216.34", Options{}, nil},
		{"10.0.0.1", Options{}, nil},
		{"127.0.0.1", Options{}, ErrLoopback},
		{"127.0.0.1", Options{AllowLocal: true}, nil},
		{"::ffff:127.0.0.1", Options{}, ErrLoopback},
		{"::1", Options{AllowLocal: true}, nil},
		{"fe80::1%eth0", Options{AllowLocal: true}, ErrMetadata},
		{"::", Options{AllowLocal: true}, ErrUnspecified},
		{"64:ff9b::8.8.8.8", Options{}, ErrTunnel},
		{"fc00::1", Options{}, ErrUniqueLocal},
		{"fc00::1", Options{AllowLocal: true}, ErrUniqueLocal},
		{"fc00::1", Options{AllowUniqueLocal: true}, nil},
		{"fd00:42::42", Options{AllowUniqueLocal: true}, ErrMetadata},
		{"fd00:a9fe:a9fe::1", Options{AllowUniqueLocal: true}, ErrMetadata},
		{"100.100.100.200", Options{AllowUniqueLocal: true}, ErrMetadata},
		{"::ffff:168.63.129.16", Options{}, ErrMetadata},
		{"2001:db8::a9fe:a9fe", Options{}, ErrMetadata},
	} {
		if err := CheckAddr(netip.MustParseAddr(test.addr), test.opts); !errors.Is(err, test.want) {
			t.Errorf("CheckAddr(%s, %+v) = %v, want %v", test.addr, test.opts, err, test.want)
		}
	}
}

// FuzzCheck holds, by the standard library's own idea of addresses, that nothing
// accepted is or contains a local address or one of a metadata service, and that
// the canonical form of what is accepted is accepted, and stays as it is.
func FuzzCheck(f *testing.F) {
	if len(endpoints) == 0 {
		f.Fatal("no seeds")
	}
	for raw := range endpoints {
		f.Add(raw)
	}
	g := newGenerator(everydaySeed)
	for range 1000 {
		f.Add(g.url())
	}
	f.Fuzz(func(t *testing.T, raw string) {
		canonical, err := Canonical(raw, Options{})
		if (err == nil) != (Check(raw, Options{}) == nil) {
			t.Fatalf("Check and Canonical disagree on %q", raw)
		}
		if err != nil {
			return
		}
		rest, ok := strings.CutPrefix(canonical, "https://")
		if !ok {
			t.Fatalf("%q: scheme of %q", raw, canonical)
		}
		if again, err := Canonical(canonical, Options{}); err != nil || again != canonical {
			t.Fatalf("%q: canonical %q, and of that %q, %v", raw, canonical, again, err)
		}
		host, _, _ := strings.Cut(rest, "/")
		if strings.Contains(host, "@") {
			t.Fatalf("%q: user name in %q", raw, canonical)
		}
		checkLocal(t, raw, host)
	})
}

func checkLocal(t *testing.T, raw, host string) {
	if port, err := netip.ParseAddrPort(host); err == nil {
		host = port.Addr().String()
	}
	addr, err := netip.ParseAddr(strings.Trim(strings.TrimRight(host, "."), "[]"))
	if err != nil {
		return
	}
	addr = addr.Unmap()
	if addr.IsLoopback() || addr.IsLinkLocalUnicast() || addr.IsUnspecified() || addr.IsMulticast() || addr.Is6() && addr.IsPrivate() {
		t.Fatalf("%q: host %s accepted", raw, addr)
	}
	for _, metadata := range []string{"100.100.100.200", "168.63.129.16", "192.0.0.192", "fd00:ec2::254"} {
		if addr == netip.MustParseAddr(metadata) {
			t.Fatalf("%q: metadata service %s accepted", raw, addr)
		}
	}
}

func TestAGuardJudgesAsCheckDoesTheSecondTimeToo(t *testing.T) {
	guard, local := NewGuard(Options{}), NewGuard(Options{AllowLocal: true})
	for range 2 {
		for raw, want := range endpoints {
			if got := guard.Check(raw); !errors.Is(got, want) {
				t.Errorf("%q: %v, want %v", raw, got, want)
			}
			if got, want := local.Check(raw), Check(raw, Options{AllowLocal: true}); !errors.Is(got, want) {
				t.Errorf("%q, local endpoints allowed: %v, want %v", raw, got, want)
			}
		}
	}
}
