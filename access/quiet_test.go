package access_test

import "log/slog"

// quiet is for tests that do not look at the log.
var quiet = slog.New(slog.DiscardHandler)
