package awstest_test

import (
	"bytes"
	"context"
	"errors"
	"net/http"
	"os"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"
	"github.com/aws/smithy-go"

	"github.com/lockwood-kms/lockwood/internal/awstest"
)

func client(endpoint, region string) *kms.Client {
	return kms.New(kms.Options{
		BaseEndpoint: &endpoint, Region: region, Retryer: aws.NopRetryer{},
		Credentials: credentials.NewStaticCredentialsProvider("AKIDTEST", "made-up-secret-of-40-characters-000000000", ""),
	})
}

// What is not signed, or not for KMS, has no answer but that.
func TestUnsignedRequestsAreRefused(t *testing.T) {
	s := awstest.NewServer()
	defer s.Close()
	k := s.CreateKey("one")
	for authorization, want := range map[string]string{
		"":       "MissingAuthenticationTokenException",
		"Bearer": "IncompleteSignature",
		"AWS4-HMAC-SHA256 Credential=AKID/20300101/eu-west-3/s3/aws4_request, SignedHeaders=host;x-amz-date;x-amz-target, Signature=" + strings.Repeat("0", 64): "IncompleteSignature",
		"AWS4-HMAC-SHA256 Credential=AKID/20300101/eu-west-3/kms/aws4_request, SignedHeaders=host;x-amz-date, Signature=" + strings.Repeat("0", 64):             "IncompleteSignature",
	} {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.URL, strings.NewReader(`{"KeyId":"`+k.ID()+`"}`))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("X-Amz-Target", "TrentService.DescribeKey")
		r.Header.Set("X-Amz-Date", "20300101T000000Z")
		r.Header.Set("Authorization", authorization)
		answer, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		var body bytes.Buffer
		_, _ = body.ReadFrom(answer.Body)
		_ = answer.Body.Close()
		if answer.StatusCode != http.StatusBadRequest || !strings.Contains(body.String(), want) {
			t.Errorf("%q: %d %s, want %s", authorization, answer.StatusCode, &body, want)
		}
	}
}

// The exceptions of Decrypt, by the cause that AWS documents for each.
func TestDecryptExceptions(t *testing.T) {
	s := awstest.NewServer()
	defer s.Close()
	k, other := s.CreateKey("one"), s.CreateKey("two")
	c := client(s.URL, awstest.Region)
	ec := map[string]string{"a": "b"}
	out, err := c.Encrypt(t.Context(), &kms.EncryptInput{KeyId: aws.String(k.ID()), Plaintext: []byte("x"), EncryptionContext: ec})
	if err != nil {
		t.Fatal(err)
	}
	blob := out.CiphertextBlob
	k.Rotate()
	for want, in := range map[string]*kms.DecryptInput{
		"":                           {KeyId: aws.String(k.ARN()), CiphertextBlob: blob, EncryptionContext: ec},
		"IncorrectKeyException":      {KeyId: aws.String(other.ARN()), CiphertextBlob: blob, EncryptionContext: ec},
		"InvalidCiphertextException": {KeyId: aws.String(k.ARN()), CiphertextBlob: blob},
		"NotFoundException":          {KeyId: aws.String("alias/none"), CiphertextBlob: blob},
		"ValidationException":        {KeyId: aws.String(k.ARN())},
		"DryRunOperationException":   {KeyId: aws.String(k.ARN()), DryRun: aws.Bool(true), DryRunModifiers: []types.DryRunModifierType{types.DryRunModifierTypeIgnoreCiphertext}},
	} {
		out, err := c.Decrypt(t.Context(), in)
		if got := code(err); got != want {
			t.Errorf("%v, want %q", err, want)
		}
		if err == nil && string(out.Plaintext) != "x" {
			t.Error("another plaintext")
		}
	}
	if _, err := client(s.URL, "us-east-1").Decrypt(t.Context(), &kms.DecryptInput{KeyId: aws.String(k.ARN()), CiphertextBlob: blob, EncryptionContext: ec}); code(err) != "NotFoundException" {
		t.Errorf("in another Region: %v", err)
	}
}

func code(err error) string {
	if api, ok := errors.AsType[smithy.APIError](err); ok {
		return api.ErrorCode()
	}
	if err != nil {
		return err.Error()
	}
	return ""
}

// local-kms ends when it is told to, and its address is one that answers.
func TestLocalKMSEnds(t *testing.T) {
	url, stop, err := awstest.StartLocalKMS(t.Context(), "../..", os.Getenv(awstest.RequireEnv) == "1")
	if errors.Is(err, awstest.ErrNotBuilt) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	c := client(url, awstest.Region)
	if _, err := c.CreateKey(t.Context(), &kms.CreateKeyInput{}); err != nil {
		t.Error(err)
	}
	stop()
	if _, err := c.CreateKey(context.WithoutCancel(t.Context()), &kms.CreateKeyInput{}); err == nil {
		t.Error("it answers after its end")
	}
}
