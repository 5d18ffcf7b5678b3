package main

import (
	"context"
	"fmt"

	"github.com/lockwood-kms/lockwood/access/servers"
	"github.com/lockwood-kms/lockwood/internal/plain"
)

// checkServers looks at the directory of MCP servers, and asks Forest if it is configured.
func (v *vault) checkServers(ctx context.Context) finding {
	const check = "MCP servers"
	switch {
	case !v.cfg.AccessTokens:
		return finding{check, verdictOK, "not used: FOREST_EXECUTOR_ACCESS_TOKENS is off", ""}
	case v.cfg.MCPServersFile == "" && v.cfg.ForestEnvSecret == "":
		return finding{check, verdictOK, "no directory is configured: access tokens are given out without one, and no tools are listed", ""}
	}
	out, err := egressOptions(v.cfg)
	if err != nil {
		return finding{check, verdictFail, err.Error(), "mend what it names"}
	}
	directory, err := newDirectory(v.cfg, out, v.log)
	if err != nil {
		return finding{check, verdictFail, err.Error(), "correct it; docs/http.md explains the file"}
	}
	all, err := directory.Servers(ctx)
	if err != nil {
		return finding{check, verdictFail, err.Error(), "correct FOREST_ENV_SECRET or FOREST_SERVER_URL, or let this machine reach Forest"}
	}
	fromForest := 0
	for _, s := range all {
		if s.Source == servers.Forest {
			fromForest++
		}
	}
	detail := plain.Count(len(all), "server", "servers")
	if v.cfg.ForestEnvSecret != "" {
		detail += fmt.Sprintf(", %d of them from Forest", fromForest)
	}
	return finding{check, verdictOK, detail, ""}
}
