package main

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	tikverr "github.com/tikv/client-go/v2/error"
)

// request is any line from stdin; each command uses some of the fields.
type request struct {
	ID        uint64        `json:"id"`
	Cmd       string        `json:"cmd"`
	TimeoutMs int           `json:"timeout_ms"`
	Key       hexBytes      `json:"key"`
	Value     hexBytes      `json:"value"`
	Expected  *hexBytes     `json:"expected"`
	Keys      []hexBytes    `json:"keys"`
	Pairs     [][2]hexBytes `json:"pairs"`
	Start     hexBytes      `json:"start"`
	End       hexBytes      `json:"end"`
	Limit     int           `json:"limit"`
	Txn       uint64        `json:"txn"`
	TS        uint64        `json:"ts"`

	Pessimistic bool   `json:"pessimistic"`
	AsyncCommit bool   `json:"async_commit"`
	OnePhase    bool   `json:"one_phase"`
	Point       string `json:"point"`
	Workers     int    `json:"workers"`
	Transfers   int    `json:"transfers"`
	MaxMs       int    `json:"max_ms"`
	Seed        int64  `json:"seed"`
	Op          string `json:"op"`
	Callers     int    `json:"callers"`
}

func (r *request) keys() [][]byte {
	keys := make([][]byte, len(r.Keys))
	for i, k := range r.Keys {
		keys[i] = k
	}
	return keys
}

func (r *request) timeout() time.Duration {
	if r.TimeoutMs > 0 {
		return time.Duration(r.TimeoutMs) * time.Millisecond
	}
	return defaultTimeout
}

// hexBytes is a byte string, in hex on the wire.
type hexBytes []byte

func (h *hexBytes) UnmarshalJSON(data []byte) error {
	var text string
	if err := json.Unmarshal(data, &text); err != nil {
		return err
	}
	decoded, err := hex.DecodeString(text)
	*h = decoded
	return err
}

// bound is an end of a range: client-go's memory buffer takes nil for "no bound", but not an empty slice.
func (h hexBytes) bound() []byte {
	if len(h) == 0 {
		return nil
	}
	return h
}

// optional is null when absent.
func optional(value []byte, exists bool) any {
	if !exists {
		return nil
	}
	return hex.EncodeToString(value)
}

type pairs [][2]string

func (p *pairs) add(key, value []byte) {
	*p = append(*p, [2]string{hex.EncodeToString(key), hex.EncodeToString(value)})
}

var errUnsupported = errors.New("client-go has no such call")

func (p *peer) run(req *request) (fields, error) {
	ctx, cancel := context.WithTimeout(context.Background(), req.timeout())
	defer cancel()
	command, ok := commands[req.Cmd]
	if !ok {
		return nil, fmt.Errorf("%w: %s", errUnsupported, req.Cmd)
	}
	if req.Cmd == "bank" || req.Cmd == "raw_load" {
		return command(p, ctx, req)
	}
	// Some of client-go's calls take no context; their time is kept here.
	done := make(chan outcome, 1)
	go func() {
		out, err := command(p, ctx, req)
		done <- outcome{out, err}
	}()
	select {
	case o := <-done:
		return o.out, o.err
	case <-time.After(req.timeout() + time.Second):
		if req.Cmd == "txn_commit" {
			return nil, tikverr.ErrResultUndetermined
		}
		return nil, fmt.Errorf("%s: %w", req.Cmd, context.DeadlineExceeded)
	}
}

type outcome struct {
	out fields
	err error
}

var commands = map[string]func(*peer, context.Context, *request) (fields, error){
	"hello": (*peer).hello,
	"tso":   (*peer).tso,
	"split": (*peer).split,
	"bank":  (*peer).bank,
	"die":   (*peer).die,

	"raw_put":          (*peer).rawPut,
	"raw_get":          (*peer).rawGet,
	"raw_delete":       (*peer).rawDelete,
	"raw_batch_put":    (*peer).rawBatchPut,
	"raw_batch_get":    (*peer).rawBatchGet,
	"raw_batch_delete": (*peer).rawBatchDelete,
	"raw_scan":         (*peer).rawScan,
	"raw_reverse_scan": (*peer).rawReverseScan,
	"raw_delete_range": (*peer).rawDeleteRange,
	"raw_cas":          (*peer).rawCas,
	"raw_load":         (*peer).rawLoad,

	"txn_begin":        (*peer).txnBegin,
	"txn_get":          (*peer).txnGet,
	"txn_batch_get":    (*peer).txnBatchGet,
	"txn_scan":         (*peer).txnScan,
	"txn_reverse_scan": (*peer).txnReverseScan,
	"txn_put":          (*peer).txnPut,
	"txn_delete":       (*peer).txnDelete,
	"txn_lock":         (*peer).txnLock,
	"txn_commit":       (*peer).txnCommit,
	"txn_rollback":     (*peer).txnRollback,
	"snapshot_get":     (*peer).snapshotGet,
	"snapshot_sum":     (*peer).snapshotSum,
}

func (p *peer) hello(context.Context, *request) (fields, error) {
	return fields{"peer": name, "version": version}, nil
}

func (p *peer) tso(ctx context.Context, _ *request) (fields, error) {
	ts, err := p.txn.GetTimestamp(ctx)
	return fields{"ts": ts}, err
}

func (p *peer) split(ctx context.Context, req *request) (fields, error) {
	ids, err := p.txn.SplitRegions(ctx, req.keys(), false, nil)
	return fields{"regions": ids}, err
}
