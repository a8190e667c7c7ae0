package main

import (
	"context"
	"errors"
	"math/rand"
	"os"
	"strconv"
	"sync"
	"time"
)

func exit() { os.Exit(0) }

// tally counts what became of a bank run's transfers.
type tally struct {
	mu           sync.Mutex
	committed    int
	conflicts    int
	undetermined int
	errors       map[string]int
}

func (t *tally) add(err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if err == nil {
		t.committed++
		return
	}
	switch kindOf(err) {
	case "conflict":
		t.conflicts++
	case "undetermined":
		t.undetermined++
	default:
		t.errors[err.Error()]++
	}
}

func (p *peer) bank(_ context.Context, req *request) (fields, error) {
	keys := req.keys()
	if len(keys) < 2 {
		return nil, errors.New("two accounts are needed at least")
	}
	deadline := time.Now().Add(time.Duration(req.MaxMs) * time.Millisecond)
	t := &tally{errors: make(map[string]int)}
	var workers sync.WaitGroup
	for w := 0; w < req.Workers; w++ {
		workers.Add(1)
		go func(rng *rand.Rand) {
			defer workers.Done()
			p.bankWorker(req, keys, rng, deadline, t)
		}(rand.New(rand.NewSource(req.Seed + int64(w))))
	}
	workers.Wait()
	return fields{
		"committed": t.committed, "conflicts": t.conflicts, "undetermined": t.undetermined, "errors": t.errors,
	}, nil
}

func (p *peer) bankWorker(req *request, keys [][]byte, rng *rand.Rand, deadline time.Time, t *tally) {
	for done := 0; done < req.Transfers && time.Now().Before(deadline); {
		ctx, cancel := context.WithTimeout(context.Background(), req.timeout())
		err := p.transfer(ctx, keys, rng)
		cancel()
		t.add(err)
		switch {
		case err == nil || kindOf(err) == "undetermined":
			done++
		case kindOf(err) == "conflict":
			time.Sleep(time.Duration(rng.Intn(20)) * time.Millisecond)
		default:
			time.Sleep(100 * time.Millisecond)
		}
	}
}

func (p *peer) transfer(ctx context.Context, keys [][]byte, rng *rand.Rand) error {
	from, to := rng.Intn(len(keys)), rng.Intn(len(keys)-1)
	if to >= from {
		to++
	}
	txn, err := p.txn.Begin()
	if err != nil {
		return err
	}
	balances := [2]int64{}
	for i, account := range []int{from, to} {
		value, err := txn.Get(ctx, keys[account])
		if err != nil {
			return errors.Join(err, txn.Rollback())
		}
		if balances[i], err = strconv.ParseInt(string(value), 10, 64); err != nil {
			return errors.Join(err, txn.Rollback())
		}
	}
	amount := min(balances[0], 1+rng.Int63n(10))
	balances[0] -= amount
	balances[1] += amount
	for i, account := range []int{from, to} {
		if err := txn.Set(keys[account], strconv.AppendInt(nil, balances[i], 10)); err != nil {
			return errors.Join(err, txn.Rollback())
		}
	}
	return txn.Commit(ctx)
}
