// One workload on the buffer of a client-go transaction; run sets it against the same on the Rust side, ../src/bin/membuffer.rs,
// which does the same things in the same order.
//
// Prints `WORKLOAD NANOSECONDS_PER_OPERATION`, or for memory_* the bytes that an entry takes: resident, and as the buffer says.
// Nanoseconds are those that the thread had a processor, so that other programs disturb less; what the garbage collector does
// on other threads is not counted.
package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"math/rand"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/tikv/client-go/v2/tikv"
	"github.com/tikv/client-go/v2/txnkv/transaction"
	"github.com/tikv/client-go/v2/txnkv/txnsnapshot"
)

const (
	entries    = 100_000
	keyBytes   = 16
	valueBytes = 128
	longEnough = 400 * time.Millisecond
)

func init() {
	// On the first thread, the one that /proc/self is about.
	runtime.LockOSThread()
}

func main() {
	if len(os.Args) != 3 {
		fail("usage: membuffer WORKLOAD COUNT")
	}
	workload := os.Args[1]
	count, err := strconv.Atoi(os.Args[2])
	check(err)
	if order, ok := strings.CutPrefix(workload, "memory_"); ok {
		resident, told := memory(order, count)
		fmt.Printf("%s %.1f %.1f\n", workload, resident, told)
		return
	}
	fmt.Printf("%s %.2f\n", workload, nanoseconds(workload, count))
}

func fail(message string) {
	fmt.Fprintln(os.Stderr, message)
	os.Exit(1)
}

func check(err error) {
	if err != nil {
		fail(err.Error())
	}
}

// newBuffer is the buffer of a transaction that will never talk to a cluster.
func newBuffer() tikv.MemBuffer {
	txn, err := transaction.NewTiKVTxn(nil, &txnsnapshot.KVSnapshot{}, 1, &transaction.TxnOptions{})
	check(err)
	return txn.GetMemBuffer()
}

func nanoseconds(workload string, count int) float64 {
	switch workload {
	case "sequential_put":
		return puts(values(count, valueBytes, bigEndian), keyBytes)
	case "random_put":
		return puts(values(count, valueBytes, random), keyBytes)
	case "large_index_put":
		return puts(values(count, valueBytes, littleEndian), valueBytes)
	case "sequential_get":
		return gets(values(count, valueBytes, bigEndian), 1)
	case "random_get":
		return gets(values(count, valueBytes, random), 1)
	case "repeated_get":
		return gets(values(count, keyBytes, littleEndian), 11)
	case "sequential_set_get":
		return setsAndGets(decimalKeys(false))
	case "random_set_get":
		return setsAndGets(decimalKeys(true))
	case "long_key_set_get":
		return longKeys(count)
	case "iterate":
		return iterate(false)
	case "iterate_random":
		return iterate(true)
	case "snapshot_iterate":
		return snapshotIterate()
	case "snapshot_cursor":
		return snapshotCursor()
	}
	fail(workload + " is not known")
	return 0
}

func bigEndian(to []byte, i int)    { binary.BigEndian.PutUint32(to, uint32(i)) }
func littleEndian(to []byte, i int) { binary.LittleEndian.PutUint32(to, uint32(i)) }
func random(to []byte, _ int)       { binary.LittleEndian.PutUint32(to, rand.Uint32()) }

// values begin with a number; keys are their first bytes.
func values(count, size int, number func([]byte, int)) [][]byte {
	made := make([][]byte, count)
	for i := range made {
		made[i] = make([]byte, size)
		number(made[i], i)
	}
	return made
}

func decimalKeys(shuffled bool) [][]byte {
	keys := make([][]byte, entries)
	for i := range keys {
		keys[i] = []byte(fmt.Sprintf("%010d", i))
	}
	if shuffled {
		rand.Shuffle(entries, func(i, j int) { keys[i], keys[j] = keys[j], keys[i] })
	}
	return keys
}

// onCPU is the time that the thread had a processor; time that passed where the kernel does not tell.
func onCPU() time.Duration {
	stat, err := os.ReadFile("/proc/self/schedstat")
	if err != nil {
		return time.Since(started)
	}
	nanoseconds, err := strconv.ParseInt(strings.Fields(string(stat))[0], 10, 64)
	check(err)
	return time.Duration(nanoseconds)
}

var started = time.Now()

func per(operations int, work func()) float64 {
	runtime.GC()
	start := onCPU()
	work()
	return float64((onCPU() - start).Nanoseconds()) / float64(operations)
}

// rounds is the average of as many rounds as it takes.
func rounds(operations int, work func()) float64 {
	runtime.GC()
	start, done := onCPU(), 0
	for onCPU()-start < longEnough {
		work()
		done++
	}
	return float64((onCPU() - start).Nanoseconds()) / float64(operations*done)
}

func puts(values [][]byte, size int) float64 {
	buffer := newBuffer()
	return per(len(values), func() {
		for _, value := range values {
			check(buffer.Set(value[:size], value))
		}
	})
}

func gets(values [][]byte, times int) float64 {
	buffer := newBuffer()
	for _, value := range values {
		check(buffer.Set(value[:keyBytes], value))
	}
	ctx := context.Background()
	return per(len(values), func() {
		for _, value := range values {
			for range times {
				_, err := buffer.Get(ctx, value[:keyBytes])
				check(err)
			}
		}
	})
}

func setsAndGets(keys [][]byte) float64 {
	buffer, ctx := newBuffer(), context.Background()
	return rounds(len(keys), func() {
		for _, key := range keys {
			check(buffer.Set(key, key))
		}
		for _, key := range keys {
			_, err := buffer.Get(ctx, key)
			check(err)
		}
	})
}

func longKeys(count int) float64 {
	keys := make([][]byte, count)
	for i := range keys {
		keys[i] = make([]byte, 1024)
		binary.BigEndian.PutUint64(keys[i], uint64(i))
		slices.Reverse(keys[i])
	}
	buffer, ctx := newBuffer(), context.Background()
	return per(count, func() {
		for _, key := range keys {
			check(buffer.Set(key, key))
		}
		for _, key := range keys {
			_, err := buffer.Get(ctx, key)
			check(err)
		}
	})
}

func table(shuffled bool) tikv.MemBuffer {
	buffer := newBuffer()
	for _, key := range decimalKeys(shuffled) {
		check(buffer.Set(key, key))
	}
	return buffer
}

func iterate(shuffled bool) float64 {
	buffer := table(shuffled)
	return rounds(entries, func() {
		iter, err := buffer.Iter(nil, nil)
		check(err)
		walk(iter)
	})
}

func walk(iter tikv.Iterator) {
	for iter.Valid() {
		_ = iter.Key()
		_ = iter.Value()
		check(iter.Next())
	}
	iter.Close()
}

func snapshotIterate() float64 {
	buffer := table(false)
	buffer.Staging()
	return rounds(entries, func() {
		each := func(_, _ []byte) (bool, error) { return false, nil }
		check(buffer.GetSnapshot().ForEachInSnapshotRange(nil, nil, each, false))
	})
}

func snapshotCursor() float64 {
	buffer := table(false)
	buffer.Staging()
	return rounds(entries, func() { walk(buffer.GetSnapshot().BatchedSnapshotIter(nil, nil, false)) })
}

// memory is what a pair of a 16-byte key and a 64-byte value takes, without what the garbage collector may keep for itself.
func memory(order string, count int) (float64, float64) {
	value, key := bytes.Repeat([]byte{7}, 64), make([]byte, keyBytes)
	buffer := newBuffer()
	runtime.GC()
	before := residentBytes()
	for i := range count {
		clear(key)
		if order == "sequential" {
			binary.BigEndian.PutUint32(key, uint32(i))
		} else {
			binary.LittleEndian.PutUint64(key, rand.Uint64())
			binary.LittleEndian.PutUint64(key[8:], rand.Uint64())
		}
		check(buffer.Set(key, value))
	}
	runtime.GC()
	resident := residentBytes() - before
	defer runtime.KeepAlive(buffer)
	return float64(resident) / float64(count), float64(buffer.Mem()) / float64(count)
}

// residentBytes works on Linux only.
func residentBytes() int {
	statm, err := os.ReadFile("/proc/self/statm")
	check(err)
	pages, err := strconv.Atoi(strings.Fields(string(statm))[1])
	check(err)
	return pages * os.Getpagesize()
}
