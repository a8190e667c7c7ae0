// Command peer is the interop peer on client-go v2: it does what the JSON lines on stdin say (see ../../PROTOCOL.md).
package main

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"github.com/pingcap/log"
	"github.com/tikv/client-go/v2/config"
	tikverr "github.com/tikv/client-go/v2/error"
	"github.com/tikv/client-go/v2/rawkv"
	"github.com/tikv/client-go/v2/txnkv"
	"github.com/tikv/client-go/v2/txnkv/transaction"
	"go.uber.org/zap/zapcore"
	"google.golang.org/grpc/grpclog"
)

const (
	name           = "client-go"
	version        = "v2.0.4"
	defaultTimeout = 30 * time.Second
	maxLine        = 64 << 20
)

func main() {
	pd := flag.String("pd", "", "address of PD")
	flag.Parse()
	answers := os.Stdout
	os.Stdout = os.Stderr
	quietLogs()
	p, err := connect(*pd, answers)
	if err != nil {
		fmt.Fprintln(os.Stderr, "peer:", err)
		os.Exit(1)
	}
	p.serve(os.Stdin)
}

func quietLogs() {
	sink := zapcore.Lock(os.Stderr)
	logger, props, err := log.InitLoggerWithWriteSyncer(&log.Config{Level: cmp.Or(os.Getenv("PEER_LOG"), "error")}, sink, sink)
	if err == nil {
		log.ReplaceGlobals(logger, props)
	}
	if os.Getenv("PEER_LOG") == "" {
		grpclog.SetLoggerV2(grpclog.NewLoggerV2(io.Discard, io.Discard, io.Discard))
	}
}

type peer struct {
	raw    *rawkv.Client
	atomic *rawkv.Client // compare-and-swap needs a client of its own
	txn    *txnkv.Client

	mu      sync.Mutex // guards what follows
	answers *json.Encoder
	open    map[uint64]*transaction.KVTxn
	lastTxn uint64
}

func connect(pd string, answers io.Writer) (*peer, error) {
	ctx := context.Background() // clients may live as long as the context they were made with
	raw, err := rawkv.NewClient(ctx, []string{pd}, config.Security{})
	if err != nil {
		return nil, err
	}
	atomic, err := rawkv.NewClient(ctx, []string{pd}, config.Security{})
	if err != nil {
		return nil, err
	}
	txn, err := txnkv.NewClient([]string{pd})
	if err != nil {
		return nil, err
	}
	return &peer{
		raw: raw, atomic: atomic.SetAtomicForCAS(true), txn: txn,
		answers: json.NewEncoder(answers), open: make(map[uint64]*transaction.KVTxn),
	}, nil
}

func (p *peer) serve(in io.Reader) {
	lines := bufio.NewScanner(in)
	lines.Buffer(nil, maxLine)
	for lines.Scan() {
		var req request
		if err := json.Unmarshal(lines.Bytes(), &req); err != nil {
			p.answer(req.ID, nil, err)
			continue
		}
		if req.Cmd == "quit" {
			p.answer(req.ID, fields{}, nil)
			return
		}
		go func() {
			out, err := p.run(&req)
			p.answer(req.ID, out, err)
		}()
	}
}

// fields are those of an answer beside id and ok.
type fields map[string]any

func (p *peer) answer(id uint64, out fields, err error) {
	if out == nil {
		out = fields{}
	}
	out["id"], out["ok"] = id, err == nil
	if err != nil {
		out["error"] = map[string]string{"kind": kindOf(err), "message": err.Error()}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := p.answers.Encode(out); err != nil {
		os.Exit(1) // nobody listens any more
	}
}

func kindOf(err error) string {
	var retryable *tikverr.ErrRetryable
	var latch *tikverr.ErrWriteConflictInLatch
	var deadlock *tikverr.ErrDeadlock
	switch {
	case errors.Is(err, errUnsupported):
		return "unsupported"
	case tikverr.IsErrorUndetermined(err):
		return "undetermined"
	case tikverr.IsErrWriteConflict(err), errors.As(err, &retryable), errors.As(err, &latch), errors.As(err, &deadlock):
		return "conflict"
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, tikverr.ErrTiKVServerTimeout),
		errors.Is(err, tikverr.ErrResolveLockTimeout), errors.Is(err, tikverr.ErrLockWaitTimeout),
		errors.Is(err, tikverr.ErrRegionUnavailable), errors.Is(err, tikverr.ErrTiKVServerBusy):
		return "timeout"
	default:
		return "other"
	}
}
