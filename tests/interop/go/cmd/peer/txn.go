package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	tikverr "github.com/tikv/client-go/v2/error"
	"github.com/tikv/client-go/v2/kv"
	"github.com/tikv/client-go/v2/oracle"
	"github.com/tikv/client-go/v2/txnkv/transaction"
)

func (p *peer) txnBegin(_ context.Context, req *request) (fields, error) {
	txn, err := p.txn.Begin()
	if err != nil {
		return nil, err
	}
	txn.SetPessimistic(req.Pessimistic)
	txn.SetEnableAsyncCommit(req.AsyncCommit)
	txn.SetEnable1PC(req.OnePhase)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.lastTxn++
	p.open[p.lastTxn] = txn
	return fields{"txn": p.lastTxn, "start_ts": txn.StartTS()}, nil
}

func (p *peer) opened(req *request) (*transaction.KVTxn, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if txn := p.open[req.Txn]; txn != nil {
		return txn, nil
	}
	return nil, fmt.Errorf("no open transaction %d", req.Txn)
}

// finishing takes the transaction out of the table.
func (p *peer) finishing(req *request) (*transaction.KVTxn, error) {
	txn, err := p.opened(req)
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.open, req.Txn)
	return txn, err
}

func (p *peer) txnGet(ctx context.Context, req *request) (fields, error) {
	txn, err := p.opened(req)
	if err != nil {
		return nil, err
	}
	return found(txn.Get(ctx, req.Key))
}

func found(value []byte, err error) (fields, error) {
	if tikverr.IsErrNotFound(err) {
		return fields{"value": nil}, nil
	}
	return fields{"value": optional(value, true)}, err
}

func (p *peer) txnBatchGet(ctx context.Context, req *request) (fields, error) {
	txn, err := p.opened(req)
	if err != nil {
		return nil, err
	}
	values, err := txn.BatchGet(ctx, req.keys())
	all := pairs{}
	for key, value := range values {
		all.add([]byte(key), value)
	}
	return fields{"pairs": all}, err
}

// iterator is what client-go's iterators share.
type iterator interface {
	Valid() bool
	Key() []byte
	Value() []byte
	Next() error
	Close()
}

func (p *peer) txnScan(_ context.Context, req *request) (fields, error) {
	txn, err := p.opened(req)
	if err != nil {
		return nil, err
	}
	iter, err := txn.Iter(req.Start, req.End.bound())
	if err != nil {
		return nil, err
	}
	return collect(iter, req.Limit, func([]byte) bool { return true })
}

// txnReverseScan: client-go's reverse iterator has no lower bound.
func (p *peer) txnReverseScan(_ context.Context, req *request) (fields, error) {
	txn, err := p.opened(req)
	if err != nil {
		return nil, err
	}
	iter, err := txn.IterReverse(req.End.bound())
	if err != nil {
		return nil, err
	}
	return collect(iter, req.Limit, func(key []byte) bool { return bytes.Compare(key, req.Start) >= 0 })
}

func collect(iter iterator, limit int, within func(key []byte) bool) (fields, error) {
	defer iter.Close()
	all := pairs{}
	for iter.Valid() && len(all) < limit && within(iter.Key()) {
		all.add(iter.Key(), iter.Value())
		if err := iter.Next(); err != nil {
			return nil, err
		}
	}
	return fields{"pairs": all}, nil
}

func (p *peer) txnPut(_ context.Context, req *request) (fields, error) {
	txn, err := p.opened(req)
	if err != nil {
		return nil, err
	}
	return nil, txn.Set(req.Key, req.Value)
}

func (p *peer) txnDelete(_ context.Context, req *request) (fields, error) {
	txn, err := p.opened(req)
	if err != nil {
		return nil, err
	}
	return nil, txn.Delete(req.Key)
}

func (p *peer) txnLock(ctx context.Context, req *request) (fields, error) {
	txn, err := p.opened(req)
	if err != nil {
		return nil, err
	}
	forUpdateTS := txn.StartTS()
	if txn.IsPessimistic() {
		if forUpdateTS, err = p.txn.GetTimestamp(ctx); err != nil {
			return nil, err
		}
	}
	return nil, txn.LockKeys(ctx, kv.NewLockCtx(forUpdateTS, kv.LockAlwaysWait, time.Now()), req.keys()...)
}

func (p *peer) txnCommit(ctx context.Context, req *request) (fields, error) {
	txn, err := p.finishing(req)
	if err != nil {
		return nil, err
	}
	if err := txn.Commit(ctx); err != nil {
		return nil, err
	}
	return fields{"commit_ts": transaction.TxnProbe{KVTxn: txn}.GetCommitTS()}, nil
}

func (p *peer) txnRollback(_ context.Context, req *request) (fields, error) {
	txn, err := p.finishing(req)
	if err != nil {
		return nil, err
	}
	return nil, txn.Rollback()
}

func (p *peer) readTS(ctx context.Context, req *request) (uint64, error) {
	if req.TS != 0 {
		return req.TS, nil
	}
	return p.txn.GetTimestamp(ctx)
}

func (p *peer) snapshotGet(ctx context.Context, req *request) (fields, error) {
	ts, err := p.readTS(ctx, req)
	if err != nil {
		return nil, err
	}
	out, err := found(p.txn.GetSnapshot(ts).Get(ctx, req.Key))
	if err != nil {
		return nil, err
	}
	out["ts"] = ts
	return out, nil
}

func (p *peer) snapshotSum(ctx context.Context, req *request) (fields, error) {
	ts, err := p.readTS(ctx, req)
	if err != nil {
		return nil, err
	}
	values, err := p.txn.GetSnapshot(ts).BatchGet(ctx, req.keys())
	if err != nil {
		return nil, err
	}
	sum := int64(0)
	for _, value := range values {
		amount, err := strconv.ParseInt(string(value), 10, 64)
		if err != nil {
			return nil, err
		}
		sum += amount
	}
	return fields{"sum": sum, "count": len(values), "ts": ts}, nil
}

// die leaves the locks of a transaction behind, as the point says, and ends the process.
func (p *peer) die(ctx context.Context, req *request) (fields, error) {
	if len(req.Pairs) == 0 {
		return nil, errors.New("pairs are needed")
	}
	txn, err := p.txn.Begin()
	if err != nil {
		return nil, err
	}
	for _, pair := range req.Pairs {
		if err := txn.Set(pair[0], pair[1]); err != nil {
			return nil, err
		}
	}
	committer, err := transaction.TxnProbe{KVTxn: txn}.NewCommitter(1)
	if err != nil {
		return nil, err
	}
	committer.SetPrimaryKey(req.Pairs[0][0])
	if err := committer.PrewriteAllMutations(ctx); err != nil {
		return nil, err
	}
	out := fields{"start_ts": txn.StartTS()}
	switch req.Point {
	case "prewritten":
	case "primary-committed":
		commitTS, err := p.txn.CurrentTimestamp(oracle.GlobalTxnScope)
		if err != nil {
			return nil, err
		}
		committer.SetCommitTS(commitTS)
		if err := committer.CommitMutations(ctx); err != nil {
			return nil, err
		}
		out["commit_ts"] = commitTS
	default:
		return nil, fmt.Errorf("no such point: %q", req.Point)
	}
	p.answer(req.ID, out, nil)
	exit()
	return nil, nil
}
