package network

import (
	"encoding/binary"
	"time"
)

// timespec reads the kernel's struct of two words, on machines of 64 and of 32 bits.
func timespec(b []byte) (time.Time, bool) {
	switch len(b) {
	case 16:
		return time.Unix(int64(binary.NativeEndian.Uint64(b)), int64(binary.NativeEndian.Uint64(b[8:]))), true
	case 8:
		return time.Unix(int64(int32(binary.NativeEndian.Uint32(b))), int64(binary.NativeEndian.Uint32(b[4:]))), true
	}
	return time.Time{}, false
}
