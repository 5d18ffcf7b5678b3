package envkey

import (
	"context"
	"fmt"

	"github.com/lockwood-kms/lockwood/core"
)

// Scheme is the scheme of the key URI of this provider, and the prefix of its KEK
// IDs.
const Scheme = "envkey"

// URI is the only key URI of this provider, and the default of Lockwood.
const URI = Scheme + "://" + Variable

// Factory returns the core.Factory for Scheme. It makes providers of the current
// key for URI and refuses anything else, without repeating it: a value may have
// been written where the variable's name belongs.
func (k *Keys) Factory() core.Factory {
	return func(_ context.Context, uri core.KeyURI) (core.KeyProvider, error) {
		if err := uri.CheckOptions(); err != nil {
			return nil, err
		}
		if uri.Host != Variable || uri.Path != "" {
			return nil, fmt.Errorf("the only key of this scheme is %s: write it so, and put the key into the variable %s or into a file that %s names", URI, Variable, FileVariable)
		}
		return k.Provider(), nil
	}
}
