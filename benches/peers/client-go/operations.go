package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/tikv/client-go/v2/config"
	"github.com/tikv/client-go/v2/kv"
	"github.com/tikv/client-go/v2/rawkv"
	"github.com/tikv/client-go/v2/txnkv"
)

// peer is one workload on one client.
type peer struct {
	raw      *rawkv.Client
	txn      *txnkv.Client
	workload func(*peer, *keys) error
	readTS   uint64 // where snapshots read
}

var errMissing = errors.New("a record is missing")

var workloads = map[string]func(*peer, *keys) error{
	"raw_get":               func(p *peer, k *keys) error { return p.rawGet(k.any()) },
	"raw_put":               func(p *peer, k *keys) error { return p.rawPut(k.any()) },
	"raw_batch_get_100":     (*peer).rawBatchGet,
	"snapshot_get":          (*peer).snapshotGet,
	"begin_get":             (*peer).beginGet,
	"commit_1_2pc":          commit(1, twoPhase),
	"commit_1_async":        commit(1, async),
	"commit_1_1pc":          commit(1, onePhase),
	"commit_1_pessimistic":  commit(1, pessimistic),
	"commit_10_2pc":         commit(10, twoPhase),
	"commit_10_async":       commit(10, async),
	"commit_10_1pc":         commit(10, onePhase),
	"commit_10_pessimistic": commit(10, pessimistic),
	"commit_10000_2pc":      commit(10_000, twoPhase),
	"scan_10000":            (*peer).scan,
	"ycsb_a":                ycsb(50, false),
	"ycsb_b":                ycsb(95, false),
	"ycsb_c":                ycsb(100, false),
	"ycsb_f":                ycsb(50, true),
	"tso":                   (*peer).tso,
}

// background is what every call is given: time limits are the client's own.
var background = context.Background()

func connect(pd, workload string) (*peer, error) {
	operation, known := workloads[workload]
	if !known {
		return nil, fmt.Errorf("no such workload: %s", workload)
	}
	raw, err := rawkv.NewClient(background, []string{pd}, config.Security{})
	if err != nil {
		return nil, err
	}
	txn, err := txnkv.NewClient([]string{pd})
	if err != nil {
		return nil, err
	}
	readTS, err := txn.GetTimestamp(background)
	return &peer{raw: raw, txn: txn, workload: operation, readTS: readTS}, err
}

func (p *peer) operate(k *keys) error { return p.workload(p, k) }

func (p *peer) rawGet(number int) error {
	found, err := p.raw.Get(background, record(number))
	if err == nil && found == nil {
		return errMissing
	}
	return err
}

func (p *peer) rawPut(number int) error {
	return p.raw.Put(background, record(number), value)
}

func (p *peer) rawBatchGet(k *keys) error {
	batch := make([][]byte, batchKeys)
	for i := range batch {
		batch[i] = record(k.any())
	}
	found, err := p.raw.BatchGet(background, batch)
	for _, value := range found {
		if value == nil {
			return errMissing
		}
	}
	return err
}

func (p *peer) snapshotGet(k *keys) error {
	_, err := p.txn.GetSnapshot(p.readTS).Get(background, txnRecord(k.any()))
	return err
}

func (p *peer) beginGet(k *keys) error {
	txn, err := p.txn.Begin()
	if err != nil {
		return err
	}
	_, err = txn.Get(background, txnRecord(k.any()))
	return err
}

// kind is how a transaction commits.
type kind int

const (
	twoPhase kind = iota
	async
	onePhase
	pessimistic
)

func commit(count int, kind kind) func(*peer, *keys) error {
	return func(p *peer, k *keys) error {
		txn, err := p.txn.Begin()
		if err != nil {
			return err
		}
		txn.SetEnableAsyncCommit(kind == async)
		txn.SetEnable1PC(kind == onePhase)
		all := k.toWrite(count)
		if kind == pessimistic {
			txn.SetPessimistic(true)
			if err := txn.LockKeysWithWaitTime(background, kv.LockAlwaysWait, all...); err != nil {
				return err
			}
		}
		for _, key := range all {
			if err := txn.Set(key, value); err != nil {
				return err
			}
		}
		return txn.Commit(background)
	}
}

func (p *peer) scan(*keys) error {
	iter, err := p.txn.GetSnapshot(p.readTS).Iter(txnRecordsAt, txnRecordsTo)
	if err != nil {
		return err
	}
	defer iter.Close()
	found := 0
	for iter.Valid() {
		found++
		if err := iter.Next(); err != nil {
			return err
		}
	}
	if found != records {
		return errMissing
	}
	return nil
}

func ycsb(readsOf100 int, readsFirst bool) func(*peer, *keys) error {
	return func(p *peer, k *keys) error {
		number := k.any()
		onlyReads := k.chance(readsOf100)
		if onlyReads || readsFirst {
			if err := p.rawGet(number); err != nil {
				return err
			}
		}
		if onlyReads {
			return nil
		}
		return p.rawPut(number)
	}
}

func (p *peer) tso(*keys) error {
	_, err := p.txn.GetTimestamp(background)
	return err
}
