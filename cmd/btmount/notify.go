package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
)

// service tells the service manager that started us (sd_notify(3): a unit of systemd of
// Type=notify) that all is ready, and, when ctx ends or stopping is called, that we stop.
// Without one it does nothing.
// A manager that cannot be told is named on stderr: it will end us after a while, and nobody
// would know why.
func service(ctx context.Context, stderr io.Writer, status string) (stopping func()) {
	address := os.Getenv("NOTIFY_SOCKET")
	if address == "" {
		return func() {}
	}
	tell := func(state string) {
		if err := sdNotify(address, state); err != nil {
			fmt.Fprintln(stderr, "btmount: NOTIFY_SOCKET:", oneLine(err))
		}
	}
	// The manager may know another process: the one that went to the background.
	tell(fmt.Sprintf("READY=1\nMAINPID=%d\nSTATUS=%s", os.Getpid(), status))
	stopping = sync.OnceFunc(func() { tell("STOPPING=1") })
	context.AfterFunc(ctx, stopping)
	return stopping
}

func sdNotify(address, state string) error {
	c, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: address, Net: "unixgram"})
	if err != nil {
		return err
	}
	defer c.Close()
	_, err = c.Write([]byte(state))
	return err
}
