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

// An endpoint from the environment is held to the same.
func TestEndpointFromTheEnvironment(t *testing.T) {
	isolate(t)
	t.Setenv("AWS_ENDPOINT_URL_KMS", "http://kms.example")
	if err := openURI(t, "awskms:///"+keyARN); err == nil || !strings.Contains(err.Error(), "plain text") {
		t.Errorf("%v, want the plain-text endpoint refused", err)
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
