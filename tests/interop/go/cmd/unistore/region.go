package main

import (
	"bytes"
	"fmt"
	"sync"

	"github.com/pingcap/kvproto/pkg/metapb"
	"github.com/pingcap/tidb/store/mockstore/unistore/tikv"
	"github.com/pingcap/tidb/util/codec"
)

// region is one immutable version of a region; a change makes a new value. It is what unistore sees as RegionCtx.
type region struct {
	meta     *metapb.Region
	leader   *metapb.Peer
	rawStart []byte
	rawEnd   []byte
	diff     int64
	latches  *latches
}

var _ tikv.RegionCtx = (*region)(nil)

func newRegion(meta *metapb.Region, leaderStore uint64, latches *latches) (*region, error) {
	r := &region{meta: meta, latches: latches}
	for _, p := range meta.Peers {
		if p.StoreId == leaderStore {
			r.leader = p
		}
	}
	if r.leader == nil {
		return nil, fmt.Errorf("region %d has no peer on store %d", meta.Id, leaderStore)
	}
	var err error
	if r.rawStart, err = userKey(meta.StartKey); err != nil {
		return nil, err
	}
	if r.rawEnd, err = userKey(meta.EndKey); err != nil {
		return nil, err
	}
	if len(r.rawEnd) == 0 {
		// unistore keeps data of its own behind this prefix.
		r.rawEnd = tikv.InternalKeyPrefix
	}
	return r, nil
}

func userKey(encoded []byte) ([]byte, error) {
	if len(encoded) == 0 {
		return nil, nil
	}
	_, key, err := codec.DecodeBytes(encoded, nil)
	return key, err
}

// contains tells whether a key as PD knows it lies in the region.
func (r *region) contains(key []byte) bool {
	return bytes.Compare(r.meta.StartKey, key) <= 0 &&
		(len(r.meta.EndKey) == 0 || bytes.Compare(key, r.meta.EndKey) < 0)
}

func (r *region) peerOn(store uint64) *metapb.Peer {
	for _, p := range r.meta.Peers {
		if p.StoreId == store {
			return p
		}
	}
	return nil
}

func (r *region) Meta() *metapb.Region           { return r.meta }
func (r *region) Diff() *int64                   { return &r.diff }
func (r *region) RawStart() []byte               { return r.rawStart }
func (r *region) RawEnd() []byte                 { return r.rawEnd }
func (r *region) AcquireLatches(hashes []uint64) { r.latches.acquire(hashes) }
func (r *region) ReleaseLatches(hashes []uint64) { r.latches.release(hashes) }

// latches serialise writers by the hashes of their keys. They are shared by all versions of all regions, so that a
// writer which began before a split excludes one which begins after it. Hashes come sorted and without duplicates,
// hence no deadlock.
type latches struct {
	mu   sync.Mutex
	held map[uint64]chan struct{}
}

func newLatches() *latches {
	return &latches{held: make(map[uint64]chan struct{})}
}

func (l *latches) acquire(hashes []uint64) {
	for _, hash := range hashes {
		for {
			l.mu.Lock()
			released, taken := l.held[hash]
			if !taken {
				l.held[hash] = make(chan struct{})
			}
			l.mu.Unlock()
			if !taken {
				break
			}
			<-released
		}
	}
}

func (l *latches) release(hashes []uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, hash := range hashes {
		close(l.held[hash])
		delete(l.held, hash)
	}
}
