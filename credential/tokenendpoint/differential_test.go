package tokenendpoint

import (
	"bufio"
	"bytes"
	"encoding/json"
	neturl "net/url"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
)

const (
	// requireEnv is the variable that turns a skip for want of Node.js into a
	// failure.
	requireEnv = "LOCKWOOD_TEST_REQUIRE_SERVERS"
	// seedEnv is the variable that sets another seed than the one of every day.
	seedEnv = "LOCKWOOD_TEST_URL_SEED"

	everydaySeed  = 20260101
	generatedURLs = 100_000
)

// nodeURL prints its versions, and then for each line of JSON on its input what
// Node's URL makes of it.
const nodeURL = `
let input = '';
process.stdin.setEncoding('utf8').on('data', (d) => { input += d; }).on('end', () => {
  const { node, ada, unicode } = process.versions;
  const out = [JSON.stringify({ versions: [node, 'ada', ada, 'Unicode', unicode].join(' ') })];
  for (const line of input.split('\n')) {
    if (!line) continue;
    try {
      const { href, hostname } = new URL(JSON.parse(line));
      out.push(JSON.stringify({ href, hostname }));
    } catch { out.push('{}'); }
  }
  process.stdout.write(out.join('\n') + '\n');
});`

// parsed is what Node's URL made of a URL: nothing, if it refused it.
type parsed struct{ Href, Hostname, Versions string }

// askNode has Node parse URLs and returns its answers, and its versions. The test
// is skipped without Node, unless requireEnv says that there has to be one.
func askNode(t *testing.T, urls []string) (answers []parsed, versions string) {
	t.Helper()
	if _, err := exec.LookPath("node"); err != nil {
		if os.Getenv(requireEnv) == "1" {
			t.Fatal("node is not installed (scripts/install-servers installs it)")
		}
		t.Skip("node is not installed (scripts/install-servers installs it)")
	}
	var input, stderr bytes.Buffer
	encoder := json.NewEncoder(&input)
	for _, u := range urls {
		must(t, encoder.Encode(u))
	}
	cmd := exec.CommandContext(t.Context(), "node", "-e", nodeURL)
	cmd.Stdin, cmd.Stderr = &input, &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("node: %v\n%s", err, stderr.Bytes())
	}
	for lines := bufio.NewScanner(bytes.NewReader(out)); lines.Scan(); {
		var p parsed
		must(t, json.Unmarshal(lines.Bytes(), &p))
		answers = append(answers, p)
	}
	if len(answers) != len(urls)+1 {
		t.Fatalf("%d answers of node for %d URLs", len(answers)-1, len(urls))
	}
	return answers[1:], answers[0].Versions
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// stricter are the classes of URLs that Node takes and the grammar refuses, by the
// words of docs/http.md.
var stricter = []struct {
	class string
	holds func(raw string, node parsed) bool
}{
	{"a last label that begins with a sign or with 16 digits, after `0`, `0x` or nothing", func(_ string, node parsed) bool {
		return nearlyNumber(lastLabel(node.Hostname))
	}},
	{"a number before several trailing dots", func(_ string, node parsed) bool {
		last := lastLabel(node.Hostname)
		return strings.HasSuffix(node.Hostname, "..") && (isIPv4Number(last) || onlyDigits(last))
	}},
	{"nothing but dots", func(_ string, node parsed) bool {
		return node.Hostname != "" && strings.Trim(node.Hostname, ".") == ""
	}},
	{"`^` in the path", func(raw string, _ parsed) bool { return strings.Contains(raw, "^") }},
	{"a name outside ASCII, or with a label in Punycode", func(raw string, node parsed) bool {
		decoded, err := neturl.PathUnescape(spelledHost(raw))
		return strings.Contains(node.Hostname, "xn--") || err == nil && !isASCII(decoded)
	}},
}

// spelledHost returns the host of a URL, with its port, as it is spelled.
func spelledHost(raw string) string {
	raw = strings.NewReplacer("\t", "", "\r", "", "\n", "").Replace(raw)
	_, rest, _ := strings.Cut(raw, ":")
	rest = strings.TrimLeft(rest, `/\`)
	if end := strings.IndexAny(rest, `/\?#`); end >= 0 {
		rest = rest[:end]
	}
	return rest[strings.LastIndexByte(rest, '@')+1:]
}

// TestWhereStricterThanNodeIsDocumented holds that docs/http.md has each class.
func TestWhereStricterThanNodeIsDocumented(t *testing.T) {
	doc, err := os.ReadFile("../../docs/http.md")
	must(t, err)
	for _, s := range stricter {
		if !strings.Contains(string(doc), "\n| "+s.class) {
			t.Errorf("docs/http.md has no row for %s", s.class)
		}
	}
}

func seed(t *testing.T) uint64 {
	t.Helper()
	value := os.Getenv(seedEnv)
	if value == "" {
		return everydaySeed
	}
	n, err := strconv.ParseUint(value, 10, 64)
	must(t, err)
	return n
}

// TestNoLooserThanNode holds that what Node's URL refuses is refused, that what
// both take is the same URL, and that the grammar is stricter only where
// docs/http.md says so.
func TestNoLooserThanNode(t *testing.T) {
	seed := seed(t)
	g := newGenerator(seed)
	urls := make([]string, generatedURLs)
	for i := range urls {
		urls[i] = strings.ToValidUTF8(g.url(), "\ufffd")
	}
	answers, versions := askNode(t, urls)
	counts := map[string]int{}
	for i, node := range answers {
		counts[compare(t, urls[i], node)]++
	}
	t.Logf("seed %d: %v; Node %s", seed, counts, versions)
	if counts["both accept"] < generatedURLs/10 {
		t.Errorf("only %d URLs that both accept: the generator is too wild", counts["both accept"])
	}
	if t.Failed() {
		t.Logf("again with: %s=%d go test -run %s ./credential/tokenendpoint", seedEnv, seed, t.Name())
	}
}

// compare judges one URL and returns the class that it belongs to.
func compare(t *testing.T, raw string, node parsed) string {
	t.Helper()
	u, err := readURL(raw)
	canonical, refused := Canonical(raw, Options{AllowLocal: true, AllowUniqueLocal: true})
	if refused == nil && (err != nil || canonical != node.Href) {
		t.Errorf("%+q: accepted as %q, and Node says %q", raw, canonical, node.Href)
	}
	switch scheme, _, _ := strings.Cut(node.Href, ":"); {
	case node.Href == "" && err == nil && (u.Scheme() == "https" || u.Scheme() == "http"):
		t.Errorf("%+q: Node refuses it, read as %q", raw, u.Href(false))
		return "looser"
	case node.Href == "":
		return "both refuse"
	case scheme != "https" && scheme != "http":
		return "another scheme"
	case err == nil && u.Href(false) != node.Href:
		t.Errorf("%+q: read as %q, and Node says %q", raw, u.Href(false), node.Href)
		return "other"
	case err == nil:
		return "both accept"
	}
	for _, s := range stricter {
		if s.holds(raw, node) {
			return s.class
		}
	}
	t.Errorf("%+q: Node reads it as %q, refused: %v", raw, node.Href, err)
	return "undocumented"
}
