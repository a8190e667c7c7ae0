package main

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"sync"

	"github.com/pingcap/badger"
	"github.com/pingcap/kvproto/pkg/kvrpcpb"
	"github.com/pingcap/tidb/store/mockstore/unistore/tikv/dbreader"
	"github.com/pingcap/tidb/store/mockstore/unistore/tikv/mvcc"
)

// lockLog makes unistore's locks survive a killed process: a lock is logged before it is visible, its removal after the
// records that replace it are in badger. A removal that was not logged in time is found out at recovery, by those records.
type lockLog struct {
	mvcc.DBWriter
	mu   sync.Mutex
	file *os.File
}

const (
	lockSet    = 1
	lockRemove = 2
)

// recoverLocks replays the log at `path` into the empty lock store, rewrites it with what is alive, and returns a writer
// which goes on logging there in front of `inner`.
func recoverLocks(path string, bundle *mvcc.DBBundle, inner mvcc.DBWriter) (mvcc.DBWriter, error) {
	alive, err := readLockLog(path)
	if err != nil {
		return nil, err
	}
	var batch []byte
	for key, lock := range alive {
		if finished(bundle.DB, []byte(key), mvcc.DecodeLock(lock).StartTS) {
			continue
		}
		bundle.LockStore.Put([]byte(key), lock)
		batch = appendRecord(batch, lockSet, []byte(key), lock)
	}
	if err := os.WriteFile(path+".new", batch, 0o600); err != nil {
		return nil, err
	}
	if err := os.Rename(path+".new", path); err != nil {
		return nil, err
	}
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	return &lockLog{DBWriter: inner, file: file}, nil
}

// finished tells whether the transaction has left a commit or rollback record on the key.
func finished(db *badger.DB, key []byte, startTS uint64) bool {
	txn := db.NewTransaction(false)
	defer txn.Discard()
	if _, err := txn.Get(mvcc.EncodeExtraTxnStatusKey(key, startTS)); err == nil {
		return true
	}
	iter := dbreader.NewIterator(txn, false, key, nil)
	defer iter.Close()
	iter.SetAllVersions(true)
	for iter.Seek(key); iter.Valid() && bytes.Equal(iter.Item().Key(), key); iter.Next() {
		if meta := iter.Item().UserMeta(); len(meta) == 16 && mvcc.DBUserMeta(meta).StartTS() == startTS {
			return true
		}
	}
	return false
}

func appendRecord(buf []byte, op byte, key, lock []byte) []byte {
	buf = append(buf, op)
	buf = binary.LittleEndian.AppendUint32(buf, uint32(len(key)))
	buf = binary.LittleEndian.AppendUint32(buf, uint32(len(lock)))
	buf = append(buf, key...)
	return append(buf, lock...)
}

// readLockLog returns the locks which the log leaves set. A record cut short at the end was never acknowledged.
func readLockLog(path string) (map[string][]byte, error) {
	alive := make(map[string][]byte)
	file, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return alive, nil
	}
	if err != nil {
		return nil, err
	}
	defer file.Close()
	reader := bufio.NewReader(file)
	for {
		var head [9]byte
		if _, err := io.ReadFull(reader, head[:]); err != nil {
			return alive, nil
		}
		key := make([]byte, binary.LittleEndian.Uint32(head[1:5]))
		lock := make([]byte, binary.LittleEndian.Uint32(head[5:9]))
		if _, err := io.ReadFull(reader, key); err != nil {
			return alive, nil
		}
		if _, err := io.ReadFull(reader, lock); err != nil {
			return alive, nil
		}
		if head[0] == lockSet {
			alive[string(key)] = lock
		} else {
			delete(alive, string(key))
		}
	}
}

func (l *lockLog) append(records []byte) error {
	if len(records) == 0 {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	_, err := l.file.Write(records)
	return err
}

// NewWriteBatch implements mvcc.DBWriter.
func (l *lockLog) NewWriteBatch(startTS, commitTS uint64, ctx *kvrpcpb.Context) mvcc.WriteBatch {
	return &loggedBatch{WriteBatch: l.DBWriter.NewWriteBatch(startTS, commitTS, ctx)}
}

// Write implements mvcc.DBWriter.
func (l *lockLog) Write(batch mvcc.WriteBatch) error {
	logged := batch.(*loggedBatch)
	if err := l.append(logged.set); err != nil {
		return err
	}
	if err := l.DBWriter.Write(logged.WriteBatch); err != nil {
		return err
	}
	return l.append(logged.removed)
}

// loggedBatch notes which locks a batch sets and removes while passing it on.
type loggedBatch struct {
	mvcc.WriteBatch
	set     []byte
	removed []byte
}

func (b *loggedBatch) Prewrite(key []byte, lock *mvcc.Lock) {
	b.set = appendRecord(b.set, lockSet, key, lock.MarshalBinary())
	b.WriteBatch.Prewrite(key, lock)
}

func (b *loggedBatch) PessimisticLock(key []byte, lock *mvcc.Lock) {
	b.set = appendRecord(b.set, lockSet, key, lock.MarshalBinary())
	b.WriteBatch.PessimisticLock(key, lock)
}

func (b *loggedBatch) Commit(key []byte, lock *mvcc.Lock) {
	b.removed = appendRecord(b.removed, lockRemove, key, nil)
	b.WriteBatch.Commit(key, lock)
}

func (b *loggedBatch) Rollback(key []byte, deleteLock bool) {
	if deleteLock {
		b.removed = appendRecord(b.removed, lockRemove, key, nil)
	}
	b.WriteBatch.Rollback(key, deleteLock)
}

func (b *loggedBatch) PessimisticRollback(key []byte) {
	b.removed = appendRecord(b.removed, lockRemove, key, nil)
	b.WriteBatch.PessimisticRollback(key)
}
