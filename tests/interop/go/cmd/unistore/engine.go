package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/pingcap/badger"
	"github.com/pingcap/kvproto/pkg/metapb"
	"github.com/pingcap/kvproto/pkg/pdpb"
	"github.com/pingcap/tidb/store/mockstore/unistore/config"
	"github.com/pingcap/tidb/store/mockstore/unistore/lockstore"
	uspd "github.com/pingcap/tidb/store/mockstore/unistore/pd"
	"github.com/pingcap/tidb/store/mockstore/unistore/tikv"
	"github.com/pingcap/tidb/store/mockstore/unistore/tikv/mvcc"
	pd "github.com/tikv/pd/client"
)

// engine is the one unistore behind all stores of the cluster.
type engine struct {
	mvcc   *tikv.MVCCStore
	inner  *tikv.StandAlongInnerServer
	writer mvcc.DBWriter
}

// openEngine opens unistore in `dir`. A durable engine survives kill -9: badger writes its log through to the kernel,
// and the locks, which unistore keeps in memory alone, get a log of our own.
func openEngine(dir string, durable bool, topo *topology, clock *oracle, gc *safePoints) (*engine, error) {
	conf := config.DefaultConf
	conf.Engine.DBPath = filepath.Join(dir, "kv")
	if err := os.MkdirAll(conf.Engine.DBPath, 0o700); err != nil {
		return nil, err
	}
	filter := &tikv.SafePoint{}
	db, err := badger.Open(badgerOptions(conf.Engine.DBPath, durable, filter))
	if err != nil {
		return nil, err
	}
	bundle := &mvcc.DBBundle{DB: db, LockStore: lockstore.NewMemStore(8 << 20), StateTS: clock.now()}
	writer := tikv.NewDBWriter(bundle)
	if durable {
		if writer, err = recoverLocks(filepath.Join(dir, "locks.log"), bundle, writer); err != nil {
			return nil, err
		}
	}
	pdClient := &innerPD{topo: topo, clock: clock, gc: gc}
	store := tikv.NewMVCCStore(&conf, bundle, conf.Engine.DBPath, filter, writer, pdClient)
	store.DeadlockDetectSvr.ChangeRole(tikv.Leader)
	store.StartDeadlockDetection(false)
	return &engine{mvcc: store, inner: tikv.NewStandAlongInnerServer(bundle), writer: writer}, nil
}

func badgerOptions(dir string, durable bool, filter *tikv.SafePoint) badger.Options {
	opts := badger.DefaultOptions
	opts.Dir = dir
	opts.ValueDir = dir
	opts.ManagedTxns = true
	opts.ValueThreshold = 0
	opts.NumCompactors = 1
	opts.MaxMemTableSize = 12 << 20
	opts.ValueLogFileSize = 64 << 20
	opts.SyncWrites = false
	opts.CompactL0WhenClose = false
	opts.VolatileMode = !durable
	opts.CompactionFilterFactory = filter.CreateCompactionFilter
	return opts
}

func (e *engine) close() error {
	return errors.Join(e.mvcc.Close(), e.inner.Stop())
}

// oracle hands out timestamps: wall-clock milliseconds and 18 logical bits, strictly increasing.
type oracle struct {
	mu   sync.Mutex
	last uint64
}

const logicalBits = 18

// next reserves `count` timestamps and returns the last of them, as PD's Tso does.
func (o *oracle) next(count uint32) uint64 {
	o.mu.Lock()
	defer o.mu.Unlock()
	wall := uint64(time.Now().UnixMilli()) << logicalBits
	if o.last < wall {
		o.last = wall
	}
	o.last += uint64(count)
	return o.last
}

func (o *oracle) now() uint64 { return o.next(1) }

func splitTS(ts uint64) (physical, logical int64) {
	return int64(ts >> logicalBits), int64(ts & (1<<logicalBits - 1))
}

// innerPD is what unistore itself asks of PD, answered in process. What it never asks for is left to the nil interface.
type innerPD struct {
	uspd.Client
	topo  *topology
	clock *oracle
	gc    *safePoints
}

func (p *innerPD) GetClusterID(context.Context) uint64                    { return clusterID }
func (p *innerPD) AllocID(context.Context) (uint64, error)                { return p.topo.AllocID() }
func (p *innerPD) GetGCSafePoint(context.Context) (uint64, error)         { return p.gc.get(), nil }
func (p *innerPD) ReportRegion(*pdpb.RegionHeartbeatRequest)              {}
func (p *innerPD) StoreHeartbeat(context.Context, *pdpb.StoreStats) error { return nil }
func (p *innerPD) Close()                                                 {}

func (p *innerPD) GetTS(context.Context) (int64, int64, error) {
	physical, logical := splitTS(p.clock.now())
	return physical, logical, nil
}

func (p *innerPD) GetStore(_ context.Context, id uint64) (*metapb.Store, error) {
	if s := p.topo.store(id); s != nil {
		return s, nil
	}
	return nil, errors.New("no such store")
}

func (p *innerPD) GetRegion(_ context.Context, key []byte, _ ...pd.GetRegionOption) (*pd.Region, error) {
	r := p.topo.byKey(key)
	return &pd.Region{Meta: r.meta, Leader: r.leader}, nil
}
