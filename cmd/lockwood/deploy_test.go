package main

import (
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/lockwood-kms/lockwood/config"
)

// deployed is a file of deploy/.
func deployed(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("../../deploy", name))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// deployCommand returns the words, as a shell takes them apart, of the command in
// deploy/README.md that begins with prefix.
func deployCommand(t *testing.T, prefix string) []string {
	t.Helper()
	for line := range strings.SplitSeq(strings.ReplaceAll(deployed(t, "README.md"), "\\\n", " "), "\n") {
		if !strings.HasPrefix(line, prefix) {
			continue
		}
		out, err := exec.CommandContext(t.Context(), "sh", "-c", `printf '%s\n' `+line).Output()
		if err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		return strings.Split(strings.TrimSpace(string(out)), "\n")
	}
	t.Fatalf("deploy/README.md has no command %q", prefix)
	return nil
}

// takes sees that args are a command of lockwood's.
func takes(t *testing.T, args []string) {
	t.Helper()
	cmd, rest, err := newRoot(io.Discard, io.Discard).Find(args)
	if err == nil {
		err = cmd.ParseFlags(rest)
	}
	if err == nil {
		err = cmd.ValidateArgs(cmd.Flags().Args())
	}
	if err != nil || !cmd.Runnable() || cmd.HasSubCommands() {
		t.Errorf("lockwood %v: %v", args, err)
	}
}

// A transient unit has what the service has for reaching its keys and its database,
// and is the same user.
func TestSystemdCommand(t *testing.T) {
	t.Parallel()
	words := deployCommand(t, "systemd-run ")
	at := slices.Index(words, "/usr/local/bin/lockwood")
	if at < 0 {
		t.Fatalf("it runs no lockwood: %q", words)
	}
	takes(t, words[at+1:])
	var given []string
	name := ""
	for i, word := range words[:at] {
		if word == "-p" {
			given = append(given, words[i+1])
		}
		if unit, ok := strings.CutPrefix(word, "--unit="); ok {
			name = unit
		}
	}
	var want []string
	// A commented property is one that is there while a key is being changed.
	properties := regexp.MustCompile(`(?m)^#?((?:DynamicUser|User|UMask|StateDirectory|StateDirectoryMode|WorkingDirectory|EnvironmentFile|LoadCredential|Environment|LimitCORE|MemorySwapMax)=.*)$`)
	specifiers := strings.NewReplacer("%d", "/run/credentials/"+name+".service", "%S", "/var/lib")
	for _, m := range properties.FindAllStringSubmatch(deployed(t, "lockwood.service"), -1) {
		want = append(want, specifiers.Replace(m[1]))
	}
	slices.Sort(given)
	slices.Sort(want)
	if !slices.Equal(given, want) {
		t.Errorf("systemd-run has\n%s\nand the unit\n%s", strings.Join(given, "\n"), strings.Join(want, "\n"))
	}
	if !slices.Contains(want, "User=lockwood") || len(want) != 14 {
		t.Errorf("of the unit were read %q", want)
	}
}

func TestContainerCommands(t *testing.T) {
	t.Parallel()
	compose := deployCommand(t, "docker compose run ")
	if compose[3] != "--rm" || !strings.Contains(deployed(t, "compose.yaml"), "\n  "+compose[4]+":\n    build:") {
		t.Errorf("%q names no service", compose)
	}
	takes(t, compose[5:])

	kubectl := deployCommand(t, "kubectl exec ")
	at := slices.Index(kubectl, "--")
	deployment := strings.TrimPrefix(kubectl[at-1], "deployment/")
	if !strings.Contains(deployed(t, "kubernetes.yaml"), "kind: Deployment\nmetadata:\n  name: "+deployment+"\n") {
		t.Errorf("%q names no deployment", kubectl)
	}
	if !strings.Contains(deployed(t, "Dockerfile"), `ENTRYPOINT ["`+kubectl[at+1]+`"]`) {
		t.Errorf("%q runs what is not in the image", kubectl)
	}
	takes(t, kubectl[at+2:])
}

// Every variable in deploy/ is one that is read, and every example shows how an old
// key is passed.
func TestDeployVariables(t *testing.T) {
	t.Parallel()
	ours := config.Variables()
	for _, name := range []string{"README.md", "compose.yaml", "kubernetes.yaml", "lockwood.service"} {
		text := deployed(t, name)
		for _, variable := range regexp.MustCompile(`FOREST_[A-Z_]+|DATABASE_[A-Z_]+|ADMIN_ADDR|DRAIN_GRACE`).FindAllString(text, -1) {
			if !slices.Contains(ours, variable) {
				t.Errorf("%s: nothing reads %s", name, variable)
			}
		}
		if !strings.Contains(text, "FOREST_EXECUTOR_PREVIOUS_ENCRYPTION_KEYS_FILE") {
			t.Errorf("%s does not say how an old key is passed", name)
		}
	}
}

// A service of the namespace sets none of our variables.
func TestKubernetesWithoutServiceLinks(t *testing.T) {
	t.Parallel()
	if !strings.Contains(deployed(t, "kubernetes.yaml"), "\n      enableServiceLinks: false\n") {
		t.Error("kubernetes.yaml lets services set variables")
	}
}

// What the examples make of the keys is what lockwood takes: a file with the new
// key, and one with the old.
func TestKeyFilesAsDeployed(t *testing.T) {
	t.Parallel()
	d := sqliteDatabase(t)
	dir := t.TempDir()
	key, previous := filepath.Join(dir, "encryption-key"), filepath.Join(dir, "previous-keys")
	env := d.with("FOREST_EXECUTOR_ENCRYPTION_KEY", "FOREST_EXECUTOR_ENCRYPTION_KEY_FILE="+key)
	change := func(script string) {
		t.Helper()
		if out, err := shell(t, nil, "umask 077; cd "+dir+"\n"+script).CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
	}
	change("lockwood key generate > encryption-key")
	fill(t, env, 3)
	change("cat encryption-key > previous-keys\nlockwood key generate > encryption-key")
	changed := append(env, "FOREST_EXECUTOR_PREVIOUS_ENCRYPTION_KEYS_FILE="+previous)
	report := rotated(t, do(t, changed, "key", "rotate", "--reseal", "--wait", "--json"))
	if !report.Independent {
		t.Errorf("the report is %+v", report)
	}
	verify(t, env, exitOK)
}
