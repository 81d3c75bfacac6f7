package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"mime"
	"net"
	"net/http"
	"sync"
	"time"
)

const (
	maxBody   = 256 << 10
	maxHeader = 8 << 10
	maxCalls  = 64               // at a time; more wait
	slow      = 10 * time.Second // for a request to come, and for a line to be taken
	farewell  = time.Second      // for answers under way when the daemon stops
)

// Serve answers on ln until ctx ends; then every request has ended, and ln is closed.
func Serve(ctx context.Context, ln net.Listener, cache Cache, log *slog.Logger) error {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/cache", answer(func(ctx context.Context, _ struct{}, _ func(Progress)) (CacheStatus, error) {
		return cache.CacheStatus(ctx)
	}))
	mux.HandleFunc("POST /v1/cache/pin", answer(cache.Pin))
	mux.HandleFunc("POST /v1/cache/unpin", answer(short(cache.Unpin)))
	mux.HandleFunc("POST /v1/cache/evict", answer(short(cache.Evict)))
	mux.HandleFunc("POST /v1/cache/verify", answer(cache.Verify))
	mux.HandleFunc("POST /v1/cache/limit", answer(short(cache.Limit)))
	g := &gate{}
	srv := &http.Server{
		Handler: g.guard(mux), ReadTimeout: slow, IdleTimeout: slow, MaxHeaderBytes: maxHeader,
		ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug), BaseContext: func(net.Listener) context.Context { return ctx },
	}
	ended := make(chan error, 1)
	go func() { ended <- srv.Serve(limit(ln, maxCalls)) }() // ends with Shutdown
	select {
	case err := <-ended:
		return fmt.Errorf("control: %w", err)
	case <-ctx.Done():
	}
	until, cancel := context.WithTimeout(context.Background(), farewell)
	defer cancel()
	err := srv.Shutdown(until)
	if err != nil {
		err = srv.Close()
	}
	<-ended
	g.Lock() // what Close left behind ends with ctx
	g.closed = true
	g.Unlock()
	return err
}

// gate is held for reading by every request.
type gate struct {
	sync.RWMutex
	closed bool
}

// guard refuses what no client of ours sends.
func (g *gate) guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		g.RLock()
		defer g.RUnlock()
		if g.closed {
			return
		}
		switch kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); {
		case r.Host != Host:
			refuse(w, http.StatusMisdirectedRequest, "this is the control socket of btmount; the Host is "+Host)
		case r.Header.Get("Origin") != "":
			refuse(w, http.StatusForbidden, "browsers are not served")
		case r.Method == http.MethodPost && (err != nil || kind != "application/json"):
			refuse(w, http.StatusUnsupportedMediaType, "the Content-Type is application/json")
		default:
			next.ServeHTTP(w, r)
		}
	})
}

func refuse(w http.ResponseWriter, status int, why string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(line[struct{}]{Error: why})
}

// line is one line of an answer.
type line[T any] struct {
	Progress *Progress `json:"progress,omitempty"`
	Result   *T        `json:"result,omitempty"`
	Error    string    `json:"error,omitempty"`
}

// short is for what reports nothing.
func short[R, T any](f func(context.Context, R) (T, error)) func(context.Context, R, func(Progress)) (T, error) {
	return func(ctx context.Context, r R, _ func(Progress)) (T, error) { return f(ctx, r) }
}

// answer serves one path.
func answer[R, T any](f func(context.Context, R, func(Progress)) (T, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		var req R
		if r.Method == http.MethodPost {
			d := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxBody))
			err := d.Decode(&req)
			if err == nil {
				if _, more := d.Token(); more != io.EOF {
					err = errors.New("there is something after it")
				}
			}
			if big := (*http.MaxBytesError)(nil); errors.As(err, &big) {
				refuse(w, http.StatusRequestEntityTooLarge, fmt.Sprintf("a request has %d bytes at most", maxBody))
				return
			}
			if err != nil {
				refuse(w, http.StatusBadRequest, fmt.Sprintf("the request is no JSON of this kind: %v", err))
				return
			}
		}
		c := http.NewResponseController(w)
		_ = c.SetReadDeadline(time.Time{}) // from now on only the end of the client is read
		ctx, cancel := context.WithCancel(r.Context())
		defer cancel()
		began := false
		write := func(l line[T]) {
			_ = c.SetWriteDeadline(time.Now().Add(slow))
			w.Header().Set("Content-Type", "application/json")
			if !began && l.Error != "" {
				w.WriteHeader(http.StatusConflict)
			}
			began = true
			if json.NewEncoder(w).Encode(l) != nil || c.Flush() != nil {
				cancel() // nobody listens
			}
		}
		result, err := f(ctx, req, func(p Progress) { write(line[T]{Progress: &p}) })
		if bad := (*RequestError)(nil); errors.As(err, &bad) && !began {
			refuse(w, http.StatusBadRequest, bad.Reason)
			return
		}
		if err != nil {
			write(line[T]{Error: err.Error()})
			return
		}
		write(line[T]{Result: &result})
	}
}

// limit accepts n calls at a time.
func limit(ln net.Listener, n int) net.Listener {
	return &limited{Listener: ln, places: make(chan struct{}, n), closed: make(chan struct{})}
}

type limited struct {
	net.Listener
	places chan struct{}
	once   sync.Once
	closed chan struct{}
}

func (l *limited) Accept() (net.Conn, error) {
	select {
	case l.places <- struct{}{}:
	case <-l.closed:
		return nil, net.ErrClosed
	}
	c, err := l.Listener.Accept()
	if err != nil {
		<-l.places
		return nil, err
	}
	return &placed{Conn: c, leave: sync.OnceFunc(func() { <-l.places })}, nil
}

func (l *limited) Close() error {
	l.once.Do(func() { close(l.closed) })
	return l.Listener.Close()
}

type placed struct {
	net.Conn
	leave func()
}

func (c *placed) Close() error {
	defer c.leave()
	return c.Conn.Close()
}
