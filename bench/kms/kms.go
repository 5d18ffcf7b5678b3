// Package kms is the AWS KMS that is measured: a server for tests on the loopback
// interface, with one key, which the product reaches through its real plugin. What
// a KMS in a region adds is the way there, the same for all.
package kms

import (
	"errors"
	"log/slog"
	"net/http"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/lockwood-kms/lockwood/internal/awstest"
	"github.com/lockwood-kms/lockwood/plugins"
	"github.com/lockwood-kms/lockwood/providers/awskms"
	"github.com/lockwood-kms/lockwood/providers/gcpkms"
	"github.com/lockwood-kms/lockwood/providers/vault"
)

// KMS is a running server. It is safe for concurrent use.
type KMS struct {
	URI string   // of its key
	Env []string // of whoever signs requests to it

	server *awstest.Server
	delay  atomic.Int64
}

// Start starts a server. Close ends it.
func Start() *KMS {
	s := awstest.NewServer()
	s.CreateKey("forest").Alias("forest")
	k := &KMS{
		URI: "awskms:///alias/forest?region=" + awstest.Region + "&endpoint=" + s.URL,
		Env: []string{
			"AWS_ACCESS_KEY_ID=AKIAIOSFODNN7EXAMPLE", "AWS_SECRET_ACCESS_KEY=made-up-for-measuring", "AWS_EC2_METADATA_DISABLED=true",
		},
		server: s,
	}
	s.Requests = func(http.ResponseWriter, *http.Request, string) bool {
		time.Sleep(time.Duration(k.delay.Load()))
		return false
	}
	return k
}

// Delay makes every answer take so much longer from now on.
func (k *KMS) Delay(d time.Duration) { k.delay.Store(int64(d)) }

// Close ends the server.
func (k *KMS) Close() { k.server.Close() }

// Calls returns how many cryptographic calls it has answered.
func (k *KMS) Calls() int {
	n := k.server.Calls()
	return n["GenerateDataKey"] + n["Encrypt"] + n["Decrypt"]
}

// Pin pins the plugins that stand in root/plugins, and returns a host for it and
// the environment in which the built binary finds both, key provider included.
// Close ends the host.
func (k *KMS) Pin(root string) (*plugins.Host, []string, error) {
	dir, lock := filepath.Join(root, "plugins"), filepath.Join(root, "plugins.lock")
	host, err := plugins.NewHost(plugins.HostOptions{Dir: dir, LockFile: lock, Environ: k.Env, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		return nil, nil, err
	}
	for _, scheme := range []string{awskms.Scheme, gcpkms.Scheme, vault.Scheme} {
		if _, err := host.Pin(scheme, nil); err != nil {
			return nil, nil, errors.Join(err, host.Close())
		}
	}
	return host, append([]string{
		"FOREST_EXECUTOR_KEY_PROVIDER=" + k.URI, "FOREST_EXECUTOR_PLUGIN_DIR=" + dir, "FOREST_EXECUTOR_PLUGIN_LOCK=" + lock,
	}, k.Env...), nil
}
