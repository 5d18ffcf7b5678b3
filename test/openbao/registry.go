package main

import (
	"maps"
	"slices"

	"github.com/openbao/openbao/builtin/credential/approle"
	jwtauth "github.com/openbao/openbao/builtin/credential/jwt"
	kubeauth "github.com/openbao/openbao/builtin/credential/kubernetes"
	"github.com/openbao/openbao/builtin/logical/transit"
	"github.com/openbao/openbao/sdk/v2/helper/consts"
	"github.com/openbao/openbao/sdk/v2/logical"
)

// What can be mounted, beside what the core brings itself.
var (
	engines     = map[string]logical.Factory{"transit": transit.Factory}
	authMethods = map[string]logical.Factory{
		"approle":    approle.Factory,
		"jwt":        jwtauth.Factory,
		"kubernetes": kubeauth.Factory,
	}
)

// registry is what the core asks when something is mounted. OpenBao's own links
// every engine and every database there is.
type registry struct{}

func factories(t consts.PluginType) map[string]logical.Factory {
	switch t {
	case consts.PluginTypeSecrets:
		return engines
	case consts.PluginTypeCredential:
		return authMethods
	default:
		return nil
	}
}

// Contains implements vault.BuiltinRegistry.
func (registry) Contains(name string, t consts.PluginType) bool {
	_, ok := factories(t)[name]
	return ok
}

// Get implements vault.BuiltinRegistry.
func (registry) Get(name string, t consts.PluginType) (func() (any, error), bool) {
	f, ok := factories(t)[name]
	return func() (any, error) { return f, nil }, ok
}

// Keys implements vault.BuiltinRegistry.
func (registry) Keys(t consts.PluginType) []string {
	return slices.Sorted(maps.Keys(factories(t)))
}

// DeprecationStatus implements vault.BuiltinRegistry.
func (registry) DeprecationStatus(name string, t consts.PluginType) (consts.DeprecationStatus, bool) {
	_, ok := factories(t)[name]
	return consts.Supported, ok
}
