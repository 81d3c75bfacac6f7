package bitswap

import (
	"log/slog"
	"os"

	golog "github.com/ipfs/go-log/v2"
	"github.com/libp2p/go-libp2p/gologshim"
)

// The libraries would write to stderr, past any log, and have one setting for a process.
// What matters of it comes back as errors. Who looks for a bug in them sets GOLOG_LOG_LEVEL.
func init() {
	if os.Getenv("GOLOG_LOG_LEVEL") != "" {
		return
	}
	gologshim.SetDefaultHandler(slog.DiscardHandler)
	golog.SetupLogging(golog.Config{Level: golog.LevelFatal})
}
