package main

import (
	"bytes"
	"fmt"
	"math/rand"
	"os"
	"slices"
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

func record(number int) []byte    { return key("raw/", number) }
func txnRecord(number int) []byte { return key("txn/", number) }

// key is made by hand, as in ../load: fmt would be a good part of what is measured.
func key(prefix string, number int) []byte {
	key := make([]byte, 16)
	copy(key, prefix)
	for at := len(key) - 1; at >= len(prefix); at-- {
		key[at] = byte('0' + number%10)
		number /= 10
	}
	return key
}

// keys are the choices of one caller.
type keys struct {
	rng     *rand.Rand
	own     string // what the keys to write begin with: nobody else's do
	written int
}

func newKeys(caller int) *keys {
	digits := []byte(fmt.Sprintf("%04x", caller))
	slices.Reverse(digits) // as in ../load
	own := fmt.Sprintf("w%s%05x", digits, os.Getpid()%(1<<20))
	return &keys{rng: rand.New(rand.NewSource(int64(caller))), own: own}
}

// any is the number of any record.
func (k *keys) any() int { return k.rng.Intn(records) }

// chance tells whether an event happens that does so of100 times of 100.
func (k *keys) chance(of100 int) bool { return k.rng.Intn(100) < of100 }

// toWrite gives the next keys to write in a transaction; no other caller has them.
func (k *keys) toWrite(count int) [][]byte {
	first := k.written % 100_000
	k.written += count
	all := make([][]byte, count)
	for i := range all {
		all[i] = key(k.own, first+i)
	}
	return all
}
