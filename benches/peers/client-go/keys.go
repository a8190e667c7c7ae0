package main

import (
	"bytes"
	"fmt"
	"math/rand"
	"os"
)

const (
	records    = 10_000
	batchKeys  = 100
	valueBytes = 100
)

var (
	value        = bytes.Repeat([]byte("v"), valueBytes)
	txnRecordsAt = []byte("txn/")
	txnRecordsTo = []byte("txn0")
)

func record(number int) []byte    { return fmt.Appendf(nil, "raw/%012d", number) }
func txnRecord(number int) []byte { return fmt.Appendf(nil, "txn/%012d", number) }

// keys are the choices of one caller.
type keys struct {
	rng     *rand.Rand
	caller  int
	written int
}

func newKeys(caller int) *keys {
	return &keys{rng: rand.New(rand.NewSource(int64(caller))), caller: caller}
}

// any is the number of any record.
func (k *keys) any() int { return k.rng.Intn(records) }

// chance tells whether an event happens that does so of100 times of 100.
func (k *keys) chance(of100 int) bool { return k.rng.Intn(100) < of100 }

// process is a part of what callers write: see Keys::to_write in ../load.
var process = os.Getpid() % (1 << 20)

// toWrite gives the next keys to write in a transaction; no other caller has them.
func (k *keys) toWrite(count int) [][]byte {
	first := k.written % 100_000
	k.written += count
	all := make([][]byte, count)
	for i := range all {
		all[i] = fmt.Appendf(nil, "w%05x%04x%06d", process, k.caller, first+i)
	}
	return all
}
