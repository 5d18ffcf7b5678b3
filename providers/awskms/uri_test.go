package awskms_test

import (
	"strings"
	"testing"

	"github.com/lockwood-kms/lockwood/core"
	"github.com/lockwood-kms/lockwood/providers/awskms"
)

const (
	keyID  = "1234abcd-12ab-34cd-56ef-1234567890ab"
	keyARN = "arn:aws:kms:eu-west-3:111122223333:key/" + keyID
	mrkARN = "arn:aws:kms:eu-west-3:111122223333:key/mrk-1234abcd12ab34cd56ef1234567890ab"
	role   = "role_arn=arn:aws:iam::111122223333:role/forest"
)

func openURI(t *testing.T, s string) error {
	t.Helper()
	uri, err := core.ParseKeyURI(s)
	if err != nil {
		t.Fatal(err)
	}
	p, err := awskms.Open(t.Context(), uri)
	if err == nil {
		err = p.Close()
	}
	return err
}

// Without any network, and without credentials.
func TestKeyURIsThatAreTaken(t *testing.T) {
	isolate(t)
	writeKeys(t, "prod", "AKIDPROD")
	for _, s := range []string{
		"awskms:///alias/forest?region=eu-west-3",
		"awskms:///alias/forest/prod_1?region=eu-west-3&profile=prod",
		"awskms:///" + keyID + "?region=eu-west-3",
		"awskms:///mrk-1234abcd12ab34cd56ef1234567890ab?region=eu-west-3",
		"awskms:///" + keyARN,
		"awskms:///" + keyARN + "?region=eu-west-3",
		"awskms:///arn:aws-cn:kms:cn-north-1:111122223333:alias/forest",
		"awskms:///arn:aws-us-gov:kms:us-gov-west-1:111122223333:key/" + keyID,
		"awskms:///" + mrkARN + "?region=us-east-1",
		"awskms:///" + keyARN + "?" + role + "&external_id=x&session_name=node-1",
		"awskms:///" + keyARN + "?endpoint=https://vpce-1.kms.eu-west-3.vpce.amazonaws.com",
		"awskms:///" + keyARN + "?endpoint=http://127.0.0.1:4566",
		"awskms:///" + keyARN + "?endpoint=http://[::1]:4566",
		"awskms:///" + keyARN + "?endpoint=http://localhost:4566",
		"awskms:///" + keyARN + "?store=3f2b8a54",
	} {
		if err := openURI(t, s); err != nil {
			t.Errorf("%s: %v", s, err)
		}
	}
}

// Every mistake has its remedy in the text, and no value that may be a secret.
func TestKeyURIsThatAreRefused(t *testing.T) {
	isolate(t)
	for s, text := range map[string]string{
		"awskms:///alias/forest":                                             "region=",
		"awskms:///alias/forest?regoin=eu-west-3":                            "regoin",
		"awskms:///alias/forest?region=":                                     "option region is empty",
		"awskms:///alias/forest?region=eu%20west":                            "eu-west-3",
		"awskms:///alias/forest?region=evil.example/":                        "eu-west-3",
		"awskms:///alias/aws/s3?region=eu-west-3":                            "key of your own",
		"awskms:///alias/?region=eu-west-3":                                  "awskms:///alias/NAME",
		"awskms:///alias/for est?region=eu-west-3":                           "awskms:///alias/NAME",
		"awskms:///?region=eu-west-3":                                        "awskms:///alias/NAME",
		"awskms:///key/" + keyID + "?region=eu-west-3":                       "awskms:///alias/NAME",
		"awskms:///arn:aws:s3:::bucket?region=eu-west-3":                     "awskms:///alias/NAME",
		"awskms:///arn:aws:kms:eu-west-3:111122223333:grant/1":               "awskms:///alias/NAME",
		"awskms:///arn:aws:kms:eu-west-3:1%232:key/" + keyID:                 "awskms:///alias/NAME",
		"awskms:///arn:aws:kms::111122223333:key/" + keyID:                   "awskms:///alias/NAME",
		"awskms://alias/forest?region=eu-west-3":                             "three slashes",
		"awskms:///" + keyARN + "?region=us-east-1":                          "multi-Region",
		"awskms:///" + keyARN + "?profile=nobody":                            `no profile "nobody"`,
		"awskms:///" + keyARN + "?role_arn=forest":                           "arn:aws:iam::",
		"awskms:///" + keyARN + "?role_arn=arn:aws:iam::111122223333:user/x": "arn:aws:iam::",
		"awskms:///" + keyARN + "?external_id=x":                             "role_arn",
		"awskms:///" + keyARN + "?" + role + "&session_name=x%20y":           "session_name",
		"awskms:///" + keyARN + "?endpoint=kms.eu-west-3.amazonaws.com":      "https://HOST",
		"awskms:///" + keyARN + "?endpoint=ftp://127.0.0.1":                  "https://HOST",
		"awskms:///" + keyARN + "?endpoint=https://user:hunter2@kms.example": "https://HOST",
		"awskms:///" + keyARN + "?endpoint=https://kms.example/?k=hunter2":   "https://HOST",
		"awskms:///" + keyARN + "?endpoint=http://kms.example":               "use https://",
	} {
		err := openURI(t, s)
		if err == nil || !strings.Contains(err.Error(), text) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: %v, want %q", s, err, text)
		}
	}
}

// An endpoint from the environment or a profile is held to the same, and so are those of
// the services that give out credentials.
func TestEndpointFromTheEnvironment(t *testing.T) {
	for name, set := range map[string]func(t *testing.T){
		"KMS":      func(t *testing.T) { t.Setenv("AWS_ENDPOINT_URL_KMS", "http://kms.example") },
		"STS":      func(t *testing.T) { t.Setenv("AWS_ENDPOINT_URL_STS", "http://sts.internal:4566") },
		"SSO":      func(t *testing.T) { t.Setenv("AWS_ENDPOINT_URL_SSO", "http://sso.internal") },
		"SSO_OIDC": func(t *testing.T) { t.Setenv("AWS_ENDPOINT_URL_SSO_OIDC", "http://oidc.internal") },
		"all": func(t *testing.T) {
			t.Setenv("AWS_ENDPOINT_URL", "http://aws.internal")
		},
		"profile": func(t *testing.T) {
			writeProfile(t, "AWS_CONFIG_FILE", "[default]\nendpoint_url = http://aws.internal\n")
		},
	} {
		t.Run(name, func(t *testing.T) {
			isolate(t)
			set(t)
			if err := openURI(t, "awskms:///"+keyARN); err == nil || !strings.Contains(err.Error(), "plain text") || !strings.Contains(err.Error(), "AWS_ENDPOINT_URL") {
				t.Errorf("%v, want the plain-text endpoint refused", err)
			}
		})
	}
	isolate(t)
	t.Setenv("AWS_ENDPOINT_URL_STS", "http://127.0.0.1:4566")
	if err := openURI(t, "awskms:///"+keyARN); err != nil {
		t.Errorf("an endpoint of this machine: %v", err)
	}
}

// A file that a variable names and that is not there is named.
func TestMissingBundle(t *testing.T) {
	isolate(t)
	t.Setenv("AWS_CA_BUNDLE", "/nowhere/ca.pem")
	if err := openURI(t, "awskms:///"+keyARN); err == nil || !strings.Contains(err.Error(), "/nowhere/ca.pem") || !strings.Contains(err.Error(), "AWS_CA_BUNDLE") {
		t.Errorf("%v, want the file named", err)
	}
}

// Several mistakes are told a line each, and the form of another program is answered with
// what was meant.
func TestMistakesInLines(t *testing.T) {
	isolate(t)
	err := openURI(t, "awskms://alias/forest?region=EU&colour=red&external_id=x&endpoint=ftp://h")
	if err == nil {
		t.Fatal("it was opened")
	}
	want := []string{"unknown option colour", "eu-west-3", "role_arn", "https://HOST", "three slashes", "write awskms:///alias/forest?region=REGION"}
	lines := strings.Split(err.Error(), "\n")
	if len(lines) != len(want) {
		t.Fatalf("%d lines, want %d:\n%v", len(lines), len(want), err)
	}
	for i := range want {
		if !strings.Contains(lines[i], want[i]) {
			t.Errorf("line %d is %q, want it to say %q", i, lines[i], want[i])
		}
	}
}

// A configuration file that cannot be used is not quoted.
func TestConfigurationFileIsNotQuoted(t *testing.T) {
	isolate(t)
	writeProfile(t, "AWS_CONFIG_FILE", "[profile prod]\nretry_mode = hunter2\n")
	err := openURI(t, "awskms:///"+keyARN+"?profile=prod")
	if err == nil || strings.Contains(err.Error(), "hunter2") {
		t.Errorf("%v, want an error that quotes nothing of the file", err)
	}
}
