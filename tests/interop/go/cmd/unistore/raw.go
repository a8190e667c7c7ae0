package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/pingcap/kvproto/pkg/errorpb"
	"github.com/pingcap/kvproto/pkg/kvrpcpb"
	"github.com/tikv/client-go/v2/testutils"
	"github.com/tikv/client-go/v2/tikvrpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// rawEngine is the raw half: unistore has none, so client-go's in-process mock engine (goleveldb) stands in. It has one
// region of its own that covers everything; regions are checked before it is asked.
type rawEngine struct {
	client *testutils.MockClient
	addr   string
	ctx    kvrpcpb.Context
	// Held shared by writers, exclusively by a compare-and-swap.
	writers sync.RWMutex
}

// openRawEngine opens the engine in `dir`, or in memory when it is empty. Column families other than the default one
// stay in memory in any case.
func openRawEngine(dir string) (*rawEngine, error) {
	if dir != "" {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, err
		}
	}
	client, cluster, pdClient, err := testutils.NewMockTiKV(dir, nil)
	if err != nil {
		return nil, err
	}
	pdClient.Close()
	storeID, peerID, regionID := testutils.BootstrapWithSingleStore(cluster)
	meta, _ := cluster.GetRegion(regionID)
	for _, peer := range meta.Peers {
		if peer.Id == peerID {
			return &rawEngine{
				client: client,
				addr:   cluster.GetStore(storeID).Address,
				ctx:    kvrpcpb.Context{RegionId: regionID, RegionEpoch: meta.RegionEpoch, Peer: peer},
			}, nil
		}
	}
	return nil, errors.New("the mock engine has no peer")
}

func (e *rawEngine) close() error { return e.client.Close() }

// ask sends one request to the mock engine. Any error which it gives, region errors included, is a fault of this
// bench: clients only ever see the cluster's own regions.
func ask[R any](e *rawEngine, ctx context.Context, cmd tikvrpc.CmdType, req any) (*R, error) {
	resp, err := e.client.SendRequest(ctx, e.addr, tikvrpc.NewRequest(cmd, req, e.ctx), time.Minute)
	if err != nil {
		return nil, err
	}
	typed, ok := resp.Resp.(*R)
	if !ok {
		return nil, fmt.Errorf("the mock engine answered %T", resp.Resp)
	}
	if r, has := resp.Resp.(interface{ GetRegionError() *errorpb.Error }); has && r.GetRegionError() != nil {
		return nil, errors.New("the mock engine: " + r.GetRegionError().String())
	}
	return typed, nil
}

// RawGet implements the Tikv service.
func (s *storeServer) RawGet(ctx context.Context, req *kvrpcpb.RawGetRequest) (*kvrpcpb.RawGetResponse, error) {
	if err := s.view.checkKeys(req.Context, true, req.Key); err != nil {
		return &kvrpcpb.RawGetResponse{RegionError: err}, nil
	}
	return ask[kvrpcpb.RawGetResponse](s.raw, ctx, tikvrpc.CmdRawGet, req)
}

// RawBatchGet leaves out what does not exist, as TiKV does.
func (s *storeServer) RawBatchGet(ctx context.Context, req *kvrpcpb.RawBatchGetRequest) (*kvrpcpb.RawBatchGetResponse, error) {
	if err := s.view.checkKeys(req.Context, true, req.Keys...); err != nil {
		return &kvrpcpb.RawBatchGetResponse{RegionError: err}, nil
	}
	resp := &kvrpcpb.RawBatchGetResponse{}
	for _, key := range req.Keys {
		one, err := ask[kvrpcpb.RawGetResponse](s.raw, ctx, tikvrpc.CmdRawGet, &kvrpcpb.RawGetRequest{Key: key, Cf: req.Cf})
		if err != nil {
			return nil, err
		}
		if !one.NotFound {
			resp.Pairs = append(resp.Pairs, &kvrpcpb.KvPair{Key: key, Value: one.Value})
		}
	}
	return resp, nil
}

// RawPut implements the Tikv service. A time to live is refused: the engine has none.
func (s *storeServer) RawPut(ctx context.Context, req *kvrpcpb.RawPutRequest) (*kvrpcpb.RawPutResponse, error) {
	if err := s.view.checkKeys(req.Context, true, req.Key); err != nil {
		return &kvrpcpb.RawPutResponse{RegionError: err}, nil
	}
	if req.Ttl > 0 {
		return &kvrpcpb.RawPutResponse{Error: "ttl is not enabled"}, nil
	}
	s.raw.writers.RLock()
	defer s.raw.writers.RUnlock()
	return ask[kvrpcpb.RawPutResponse](s.raw, ctx, tikvrpc.CmdRawPut, req)
}

// RawBatchPut implements the Tikv service.
func (s *storeServer) RawBatchPut(ctx context.Context, req *kvrpcpb.RawBatchPutRequest) (*kvrpcpb.RawBatchPutResponse, error) {
	keys := make([][]byte, len(req.Pairs))
	for i, pair := range req.Pairs {
		keys[i] = pair.Key
	}
	if err := s.view.checkKeys(req.Context, true, keys...); err != nil {
		return &kvrpcpb.RawBatchPutResponse{RegionError: err}, nil
	}
	for _, ttl := range append([]uint64{req.Ttl}, req.Ttls...) { //nolint:staticcheck // clients still send both
		if ttl > 0 {
			return &kvrpcpb.RawBatchPutResponse{Error: "ttl is not enabled"}, nil
		}
	}
	s.raw.writers.RLock()
	defer s.raw.writers.RUnlock()
	return ask[kvrpcpb.RawBatchPutResponse](s.raw, ctx, tikvrpc.CmdRawBatchPut, req)
}

// RawDelete implements the Tikv service.
func (s *storeServer) RawDelete(ctx context.Context, req *kvrpcpb.RawDeleteRequest) (*kvrpcpb.RawDeleteResponse, error) {
	if err := s.view.checkKeys(req.Context, true, req.Key); err != nil {
		return &kvrpcpb.RawDeleteResponse{RegionError: err}, nil
	}
	s.raw.writers.RLock()
	defer s.raw.writers.RUnlock()
	return ask[kvrpcpb.RawDeleteResponse](s.raw, ctx, tikvrpc.CmdRawDelete, req)
}

// RawBatchDelete implements the Tikv service.
func (s *storeServer) RawBatchDelete(ctx context.Context, req *kvrpcpb.RawBatchDeleteRequest) (*kvrpcpb.RawBatchDeleteResponse, error) {
	if err := s.view.checkKeys(req.Context, true, req.Keys...); err != nil {
		return &kvrpcpb.RawBatchDeleteResponse{RegionError: err}, nil
	}
	s.raw.writers.RLock()
	defer s.raw.writers.RUnlock()
	return ask[kvrpcpb.RawBatchDeleteResponse](s.raw, ctx, tikvrpc.CmdRawBatchDelete, req)
}

// RawDeleteRange implements the Tikv service.
func (s *storeServer) RawDeleteRange(ctx context.Context, req *kvrpcpb.RawDeleteRangeRequest) (*kvrpcpb.RawDeleteRangeResponse, error) {
	r, regionErr := s.view.check(req.Context)
	if regionErr != nil {
		return &kvrpcpb.RawDeleteRangeResponse{RegionError: regionErr}, nil
	}
	clipped := *req
	clipped.StartKey, clipped.EndKey = r.clip(req.StartKey, req.EndKey)
	s.raw.writers.RLock()
	defer s.raw.writers.RUnlock()
	return ask[kvrpcpb.RawDeleteRangeResponse](s.raw, ctx, tikvrpc.CmdRawDeleteRange, &clipped)
}

// RawScan answers no further than the region's edge.
func (s *storeServer) RawScan(ctx context.Context, req *kvrpcpb.RawScanRequest) (*kvrpcpb.RawScanResponse, error) {
	r, regionErr := s.view.check(req.Context)
	if regionErr != nil {
		return &kvrpcpb.RawScanResponse{RegionError: regionErr}, nil
	}
	clipped := *req
	if req.Reverse {
		clipped.EndKey, clipped.StartKey = r.clip(req.EndKey, req.StartKey)
	} else {
		clipped.StartKey, clipped.EndKey = r.clip(req.StartKey, req.EndKey)
	}
	resp, err := ask[kvrpcpb.RawScanResponse](s.raw, ctx, tikvrpc.CmdRawScan, &clipped)
	if err == nil && req.KeyOnly {
		for _, pair := range resp.Kvs {
			pair.Value = nil
		}
	}
	return resp, err
}

// RawBatchScan is a scan for each range in turn.
func (s *storeServer) RawBatchScan(ctx context.Context, req *kvrpcpb.RawBatchScanRequest) (*kvrpcpb.RawBatchScanResponse, error) {
	resp := &kvrpcpb.RawBatchScanResponse{}
	for _, keyRange := range req.Ranges {
		one, err := s.RawScan(ctx, &kvrpcpb.RawScanRequest{
			Context: req.Context, StartKey: keyRange.StartKey, EndKey: keyRange.EndKey,
			Limit: req.EachLimit, KeyOnly: req.KeyOnly, Cf: req.Cf, Reverse: req.Reverse,
		})
		if err != nil {
			return nil, err
		}
		if one.RegionError != nil {
			return &kvrpcpb.RawBatchScanResponse{RegionError: one.RegionError}, nil
		}
		resp.Kvs = append(resp.Kvs, one.Kvs...)
	}
	return resp, nil
}

// clip cuts the range [lower, upper) to the region; an empty upper bound has no end.
func (r *region) clip(lower, upper []byte) ([]byte, []byte) {
	if bytes.Compare(lower, r.meta.StartKey) < 0 {
		lower = r.meta.StartKey
	}
	end := r.meta.EndKey
	if len(upper) == 0 || (len(end) > 0 && bytes.Compare(end, upper) < 0) {
		upper = end
	}
	return lower, upper
}

// RawCompareAndSwap reads, compares and puts with all other writers kept out: the engine's own swap fails on a key that
// does not exist.
func (s *storeServer) RawCompareAndSwap(ctx context.Context, req *kvrpcpb.RawCASRequest) (*kvrpcpb.RawCASResponse, error) {
	if err := s.view.checkKeys(req.Context, true, req.Key); err != nil {
		return &kvrpcpb.RawCASResponse{RegionError: err}, nil
	}
	s.raw.writers.Lock()
	defer s.raw.writers.Unlock()
	old, err := ask[kvrpcpb.RawGetResponse](s.raw, ctx, tikvrpc.CmdRawGet, &kvrpcpb.RawGetRequest{Key: req.Key, Cf: req.Cf})
	if err != nil {
		return nil, err
	}
	resp := &kvrpcpb.RawCASResponse{PreviousNotExist: old.NotFound, PreviousValue: old.Value}
	if old.NotFound != req.PreviousNotExist || (!old.NotFound && !bytes.Equal(old.Value, req.PreviousValue)) {
		return resp, nil
	}
	put := &kvrpcpb.RawPutRequest{Key: req.Key, Value: req.Value, Cf: req.Cf}
	if _, err := ask[kvrpcpb.RawPutResponse](s.raw, ctx, tikvrpc.CmdRawPut, put); err != nil {
		return nil, err
	}
	resp.Succeed = true
	return resp, nil
}

// RawChecksum implements the Tikv service.
func (s *storeServer) RawChecksum(ctx context.Context, req *kvrpcpb.RawChecksumRequest) (*kvrpcpb.RawChecksumResponse, error) {
	r, regionErr := s.view.check(req.Context)
	if regionErr != nil {
		return &kvrpcpb.RawChecksumResponse{RegionError: regionErr}, nil
	}
	clipped := &kvrpcpb.RawChecksumRequest{Algorithm: req.Algorithm}
	for _, keyRange := range req.Ranges {
		start, end := r.clip(keyRange.StartKey, keyRange.EndKey)
		clipped.Ranges = append(clipped.Ranges, &kvrpcpb.KeyRange{StartKey: start, EndKey: end})
	}
	return ask[kvrpcpb.RawChecksumResponse](s.raw, ctx, tikvrpc.CmdRawChecksum, clipped)
}

// RawGetKeyTTL is refused rather than answered emptily: the engine has no time to live.
func (s *storeServer) RawGetKeyTTL(context.Context, *kvrpcpb.RawGetKeyTTLRequest) (*kvrpcpb.RawGetKeyTTLResponse, error) {
	return nil, status.Error(codes.Unimplemented, "this server has no raw TTL")
}
