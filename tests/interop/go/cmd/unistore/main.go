// Command unistore serves TiDB's unistore as a TiKV cluster on 127.0.0.1: several stores and one PD, each on a TCP port
// of its own. It prints `pd 127.0.0.1:PORT` when it is ready, then answers admin commands from stdin, one line each
// (see admin.go). SIGTERM ends it; so does the end of stdin with --exit-on-eof.
package main

import (
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/pingcap/kvproto/pkg/keyspacepb"
	"github.com/pingcap/kvproto/pkg/pdpb"
	"github.com/pingcap/kvproto/pkg/tikvpb"
	"github.com/pingcap/log"
	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.uber.org/zap/zapcore"
	"google.golang.org/grpc"
	"google.golang.org/grpc/grpclog"
)

type flags struct {
	pdAddr    string
	stores    int
	regions   int
	data      string
	exitOnEOF bool
	lifetime  time.Duration
}

func main() {
	var f flags
	flag.StringVar(&f.pdAddr, "pd-addr", "127.0.0.1:0", "where PD listens; port 0 means any (or the last one, with --data)")
	flag.IntVar(&f.stores, "stores", 3, "number of stores")
	flag.IntVar(&f.regions, "regions", 8, "number of regions at the first start (1 to 256)")
	flag.StringVar(&f.data, "data", "", "directory that outlives the process, even kill -9; default: a temporary one")
	flag.BoolVar(&f.exitOnEOF, "exit-on-eof", false, "end when stdin ends")
	flag.DurationVar(&f.lifetime, "lifetime", 0, "end after this time at the latest; 0: never")
	flag.Parse()

	// stdout belongs to the answers; the loggers of the libraries must not write there.
	answers := os.Stdout
	os.Stdout = os.Stderr
	quietLogs()
	if err := run(f, answers); err != nil {
		fmt.Fprintln(os.Stderr, "unistore:", err)
		os.Exit(1)
	}
}

func quietLogs() {
	level := zapcore.ErrorLevel
	if os.Getenv("UNISTORE_LOG") != "" {
		level = zapcore.InfoLevel
	}
	sink := zapcore.Lock(os.Stderr)
	logger, props, err := log.InitLoggerWithWriteSyncer(&log.Config{Level: level.String()}, sink, sink)
	if err == nil {
		log.ReplaceGlobals(logger, props)
	}
	grpclog.SetLoggerV2(grpclog.NewLoggerV2(io.Discard, io.Discard, io.Discard))
}

func run(f flags, answers io.Writer) error {
	if f.stores < 1 || f.regions < 1 || f.regions > 256 {
		return fmt.Errorf("cannot make %d stores with %d regions", f.stores, f.regions)
	}
	dir, durable := f.data, f.data != ""
	if !durable {
		temp, err := os.MkdirTemp("", "interop-unistore-")
		if err != nil {
			return err
		}
		defer os.RemoveAll(temp)
		dir = temp
	}
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT)
	c, err := startCluster(f, dir, durable)
	if err != nil {
		return err
	}
	defer c.close()
	fmt.Fprintf(answers, "pd %s\n", c.pd.addr)

	ended := make(chan struct{})
	go func() {
		c.serveAdmin(os.Stdin, answers)
		if f.exitOnEOF {
			close(ended)
		}
	}()
	var expired <-chan time.Time
	if f.lifetime > 0 {
		expired = time.After(f.lifetime)
	}
	select {
	case <-signals:
	case <-ended:
	case <-expired:
		fmt.Fprintln(os.Stderr, "unistore: its lifetime is over")
	}
	return nil
}

// cluster is everything that runs.
type cluster struct {
	topo   *topology
	engine *engine
	raw    *rawEngine
	pd     *endpoint
	stores []*endpoint
}

func startCluster(f flags, dir string, durable bool) (*cluster, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	c := &cluster{}
	if err := c.openPorts(f, dir, durable); err != nil {
		return nil, err
	}
	clock, gc := &oracle{}, newSafePoints()
	var err error
	if c.engine, err = openEngine(dir, durable, c.topo, clock, gc); err != nil {
		return nil, err
	}
	rawDir := ""
	if durable {
		rawDir = filepath.Join(dir, "raw")
	}
	if c.raw, err = openRawEngine(rawDir); err != nil {
		return nil, err
	}
	c.prepareServices(clock, gc)
	for _, e := range append(c.stores, c.pd) {
		if err := e.start(); err != nil {
			return nil, err
		}
	}
	return c, nil
}

// openPorts takes the ports which an earlier run on the same data had, or any for a new cluster: clients remember
// addresses across a restart.
func (c *cluster) openPorts(f flags, dir string, durable bool) error {
	path := ""
	if durable {
		path = filepath.Join(dir, "topology.json")
		if topo, err := loadTopology(path); err == nil {
			return c.reopenPorts(f, topo)
		}
	}
	var err error
	if c.pd, err = listen("pd", f.pdAddr); err != nil {
		return err
	}
	var addresses []string
	for i := 0; i < f.stores; i++ {
		store, err := listen(fmt.Sprintf("store %d", i+1), "127.0.0.1:0")
		if err != nil {
			return err
		}
		c.stores = append(c.stores, store)
		addresses = append(addresses, store.addr)
	}
	c.topo, err = newTopology(c.pd.addr, addresses, f.regions, path)
	return err
}

func (c *cluster) reopenPorts(f flags, topo *topology) error {
	c.topo = topo
	addr := topo.pdAddr
	if f.pdAddr != "127.0.0.1:0" {
		addr = f.pdAddr
	}
	var err error
	if c.pd, err = listen("pd", addr); err != nil {
		return err
	}
	for _, s := range topo.allStores() {
		store, err := listen(fmt.Sprintf("store %d", s.Id), s.Address)
		if err != nil {
			return err
		}
		c.stores = append(c.stores, store)
	}
	return nil
}

func (c *cluster) prepareServices(clock *oracle, gc *safePoints) {
	pd := &pdServer{topo: c.topo, clock: clock, gc: gc, addr: c.pd.addr}
	etcd := newEtcdServer(pd)
	newer := &newerServer{pd: pd, etcd: etcd}
	c.pd.options = []grpc.ServerOption{grpc.UnknownServiceHandler(newer.handle)}
	c.pd.register = func(s *grpc.Server) {
		pdpb.RegisterPDServer(s, pd)
		keyspacepb.RegisterKeyspaceServer(s, &keyspaceServer{pd: pd})
		etcdserverpb.RegisterKVServer(s, etcd)
		etcdserverpb.RegisterClusterServer(s, etcd)
	}
	for i, store := range c.stores {
		service := newStoreServer(c.topo, uint64(i+1), c.engine, c.raw)
		store.register = func(s *grpc.Server) { tikvpb.RegisterTikvServer(s, service) }
	}
}

func (c *cluster) close() {
	for _, e := range append(c.stores, c.pd) {
		_ = e.stop() // one that an admin has stopped before says so
	}
	if err := c.engine.close(); err != nil {
		fmt.Fprintln(os.Stderr, "unistore: closing:", err)
	}
	if err := c.raw.close(); err != nil {
		fmt.Fprintln(os.Stderr, "unistore: closing the raw engine:", err)
	}
}
