package fs_test

import (
	"os"
	"testing"

	"go.uber.org/goleak"

	"github.com/btmount/btmount/fs/fstest"
)

// TestMain plays the daemon or the reader of a test when it is told to, in a
// process of its own that a test can kill.
func TestMain(m *testing.M) {
	fstest.Visit()
	if role := os.Getenv("BTMOUNT_TEST_ROLE"); role != "" {
		play(role, os.Getenv("BTMOUNT_TEST_POINT"))
	}
	goleak.VerifyTestMain(m)
}
