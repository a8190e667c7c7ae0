package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"sort"
	"sync"

	"github.com/pingcap/kvproto/pkg/metapb"
	"github.com/pingcap/tidb/util/codec"
)

// clusterID is what PD reports; a client that claims another one is refused, as PD does.
const clusterID = 7_000_000_000_000_000_001

// topology is the map of the cluster: stores, regions, epochs, leaders. PD answers from it and every store checks
// requests against it. All keys here are as PD knows them: memcomparable-encoded.
type topology struct {
	mu      sync.RWMutex
	nextID  uint64
	stores  []*metapb.Store
	regions []*region // sorted by start key, without gaps
	latches *latches
	pdAddr  string
	path    string // where to save every change; empty: nowhere
}

type savedTopology struct {
	NextID  uint64
	PdAddr  string
	Stores  []*metapb.Store
	Regions []savedRegion
}

type savedRegion struct {
	Meta   *metapb.Region
	Leader uint64 // store id
}

// newTopology lays out `stores` stores and `regions` regions split evenly over the first byte of the user's key; each
// region has a peer on each store and leaders are spread round robin.
func newTopology(pdAddr string, addresses []string, regions int, path string) (*topology, error) {
	t := &topology{latches: newLatches(), pdAddr: pdAddr, path: path}
	for range addresses {
		t.nextID++
	}
	for i, address := range addresses {
		t.stores = append(t.stores, newStore(uint64(i+1), address))
	}
	bounds := [][]byte{nil}
	for i := 1; i < regions; i++ {
		bounds = append(bounds, codec.EncodeBytes(nil, []byte{byte(i * 256 / regions)}))
	}
	bounds = append(bounds, nil)
	for i := 0; i < regions; i++ {
		meta := &metapb.Region{
			Id:          t.allocID(),
			StartKey:    bounds[i],
			EndKey:      bounds[i+1],
			RegionEpoch: &metapb.RegionEpoch{ConfVer: 1, Version: 1},
			Peers:       t.newPeers(),
		}
		r, err := newRegion(meta, t.stores[i%len(t.stores)].Id, t.latches)
		if err != nil {
			return nil, err
		}
		t.regions = append(t.regions, r)
	}
	return t, t.save()
}

// loadTopology restores what an earlier run saved at `path`.
func loadTopology(path string) (*topology, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var saved savedTopology
	if err := json.Unmarshal(data, &saved); err != nil {
		return nil, err
	}
	t := &topology{
		nextID: saved.NextID, stores: saved.Stores, latches: newLatches(), pdAddr: saved.PdAddr, path: path,
	}
	for _, s := range saved.Regions {
		r, err := newRegion(s.Meta, s.Leader, t.latches)
		if err != nil {
			return nil, err
		}
		t.regions = append(t.regions, r)
	}
	return t, nil
}

func newStore(id uint64, address string) *metapb.Store {
	return &metapb.Store{
		Id:      id,
		Address: address,
		State:   metapb.StoreState_Up,
		Version: "6.5.0",
		Labels:  []*metapb.StoreLabel{{Key: "host", Value: fmt.Sprintf("h%d", id)}},
	}
}

// save writes the map to disk through a rename, so that a killed server finds the old or the new one, never half.
func (t *topology) save() error {
	if t.path == "" {
		return nil
	}
	saved := savedTopology{NextID: t.nextID, PdAddr: t.pdAddr, Stores: t.stores}
	for _, r := range t.regions {
		saved.Regions = append(saved.Regions, savedRegion{Meta: r.meta, Leader: r.leader.StoreId})
	}
	data, err := json.Marshal(saved)
	if err != nil {
		return err
	}
	if err := os.WriteFile(t.path+".new", data, 0o600); err != nil {
		return err
	}
	return os.Rename(t.path+".new", t.path)
}

func (t *topology) allocID() uint64 {
	t.nextID++
	return t.nextID
}

// AllocID hands out an id never used before in this cluster.
func (t *topology) AllocID() (uint64, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	id := t.allocID()
	return id, t.save()
}

func (t *topology) newPeers() []*metapb.Peer {
	peers := make([]*metapb.Peer, 0, len(t.stores))
	for _, s := range t.stores {
		peers = append(peers, &metapb.Peer{Id: t.allocID(), StoreId: s.Id})
	}
	return peers
}

// byKey finds the region that holds the (encoded) key.
func (t *topology) byKey(key []byte) *region {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.regions[t.indexOf(key)]
}

// byPreviousKey finds the region just before the one which holds `key`, or nil for the first.
func (t *topology) byPreviousKey(key []byte) *region {
	t.mu.RLock()
	defer t.mu.RUnlock()
	i := t.indexOf(key)
	if i == 0 {
		return nil
	}
	return t.regions[i-1]
}

func (t *topology) indexOf(key []byte) int {
	return sort.Search(len(t.regions), func(i int) bool { return bytes.Compare(t.regions[i].meta.StartKey, key) > 0 }) - 1
}

func (t *topology) byID(id uint64) *region {
	t.mu.RLock()
	defer t.mu.RUnlock()
	if i := t.indexOfID(id); i >= 0 {
		return t.regions[i]
	}
	return nil
}

func (t *topology) indexOfID(id uint64) int {
	for i, r := range t.regions {
		if r.meta.Id == id {
			return i
		}
	}
	return -1
}

// scan lists the regions which overlap [start, end), at most `limit` when positive.
func (t *topology) scan(start, end []byte, limit int) []*region {
	t.mu.RLock()
	defer t.mu.RUnlock()
	var found []*region
	for i := t.indexOf(start); i < len(t.regions); i++ {
		r := t.regions[i]
		if len(end) > 0 && bytes.Compare(r.meta.StartKey, end) >= 0 {
			break
		}
		found = append(found, r)
		if limit > 0 && len(found) == limit {
			break
		}
	}
	return found
}

func (t *topology) store(id uint64) *metapb.Store {
	t.mu.RLock()
	defer t.mu.RUnlock()
	for _, s := range t.stores {
		if s.Id == id {
			return s
		}
	}
	return nil
}

func (t *topology) allStores() []*metapb.Store {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return append([]*metapb.Store(nil), t.stores...)
}

// around lists the region and its neighbours: what a client with a stale epoch needs to refresh its view.
func (t *topology) around(id uint64) []*metapb.Region {
	t.mu.RLock()
	defer t.mu.RUnlock()
	i := t.indexOfID(id)
	if i < 0 {
		return nil
	}
	metas := []*metapb.Region{t.regions[i].meta}
	if i > 0 {
		metas = append(metas, t.regions[i-1].meta)
	}
	if i+1 < len(t.regions) {
		metas = append(metas, t.regions[i+1].meta)
	}
	return metas
}

// split cuts the region that holds the user's key there. As in TiKV the right half keeps the id, the left half is new,
// and both get the next version.
func (t *topology) split(userKey []byte) (left, right *region, err error) {
	key := codec.EncodeBytes(nil, userKey)
	t.mu.Lock()
	defer t.mu.Unlock()
	i := t.indexOf(key)
	old := t.regions[i]
	if bytes.Equal(old.meta.StartKey, key) {
		return nil, nil, fmt.Errorf("region %d starts at that key already", old.meta.Id)
	}
	epoch := &metapb.RegionEpoch{ConfVer: old.meta.RegionEpoch.ConfVer, Version: old.meta.RegionEpoch.Version + 1}
	leftMeta := &metapb.Region{
		Id: t.allocID(), StartKey: old.meta.StartKey, EndKey: key, RegionEpoch: epoch, Peers: t.newPeers(),
	}
	rightMeta := &metapb.Region{
		Id: old.meta.Id, StartKey: key, EndKey: old.meta.EndKey, RegionEpoch: epoch, Peers: old.meta.Peers,
	}
	if left, err = newRegion(leftMeta, old.leader.StoreId, t.latches); err != nil {
		return nil, nil, err
	}
	if right, err = newRegion(rightMeta, old.leader.StoreId, t.latches); err != nil {
		return nil, nil, err
	}
	regions := append([]*region(nil), t.regions[:i]...)
	regions = append(regions, left, right)
	t.regions = append(regions, t.regions[i+1:]...)
	return left, right, t.save()
}

// transferLeader makes the peer on `store` the region's leader.
func (t *topology) transferLeader(id, store uint64) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	i := t.indexOfID(id)
	if i < 0 {
		return errors.New("no such region")
	}
	moved, err := newRegion(t.regions[i].meta, store, t.latches)
	if err != nil {
		return err
	}
	t.regions[i] = moved
	return t.save()
}
