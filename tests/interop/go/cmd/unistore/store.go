package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/pingcap/kvproto/pkg/errorpb"
	"github.com/pingcap/kvproto/pkg/kvrpcpb"
	"github.com/pingcap/kvproto/pkg/metapb"
	"github.com/pingcap/tidb/store/mockstore/unistore/tikv"
	"github.com/pingcap/tidb/util/codec"
)

// storeView is the cluster as one store sees it: it refuses what was sent to the wrong store, peer, leader or epoch.
// unistore consults it for each request.
type storeView struct {
	topo    *topology
	storeID uint64
}

var _ tikv.RegionManager = (*storeView)(nil)

func (v *storeView) GetRegionFromCtx(ctx *kvrpcpb.Context) (tikv.RegionCtx, *errorpb.Error) {
	r, err := v.check(ctx)
	if err != nil {
		return nil, err
	}
	return r, nil
}

// check finds the region of a request, in the order in which TiKV looks: store, region, peer, leader, epoch.
func (v *storeView) check(ctx *kvrpcpb.Context) (*region, *errorpb.Error) {
	if _, _, err := v.GetStoreInfoFromCtx(ctx); err != nil {
		return nil, err
	}
	id := ctx.GetRegionId()
	r := v.topo.byID(id)
	if r == nil {
		return nil, &errorpb.Error{
			Message:        fmt.Sprintf("region %d not found", id),
			RegionNotFound: &errorpb.RegionNotFound{RegionId: id},
		}
	}
	if peer := r.peerOn(v.storeID); peer.GetId() != ctx.GetPeer().GetId() {
		return nil, &errorpb.Error{Message: fmt.Sprintf("mismatch peer id %d != %d", peer.GetId(), ctx.GetPeer().GetId())}
	}
	anyPeer := ctx.GetReplicaRead() || ctx.GetStaleRead()
	if r.leader.StoreId != v.storeID && !anyPeer {
		return nil, &errorpb.Error{
			Message:   fmt.Sprintf("peer is not leader for region %d", id),
			NotLeader: &errorpb.NotLeader{RegionId: id, Leader: r.leader},
		}
	}
	epoch, claimed := r.meta.RegionEpoch, ctx.GetRegionEpoch()
	if claimed.GetVersion() != epoch.Version || claimed.GetConfVer() != epoch.ConfVer {
		return nil, &errorpb.Error{
			Message:       fmt.Sprintf("current epoch of region %d is %v, but you sent %v", id, epoch, claimed),
			EpochNotMatch: &errorpb.EpochNotMatch{CurrentRegions: v.topo.around(id)},
		}
	}
	return r, nil
}

// checkKeys is check, and refuses keys which lie outside the region: the one engine behind all stores would never notice.
func (v *storeView) checkKeys(ctx *kvrpcpb.Context, raw bool, keys ...[]byte) *errorpb.Error {
	r, err := v.check(ctx)
	if err != nil {
		return err
	}
	for _, key := range keys {
		known := key
		if !raw {
			known = codec.EncodeBytes(nil, key)
		}
		if !r.contains(known) {
			return &errorpb.Error{
				Message: fmt.Sprintf("key %x is not in region %d", key, r.meta.Id),
				KeyNotInRegion: &errorpb.KeyNotInRegion{
					Key: key, RegionId: r.meta.Id, StartKey: r.meta.StartKey, EndKey: r.meta.EndKey,
				},
			}
		}
	}
	return nil
}

func (v *storeView) GetStoreInfoFromCtx(ctx *kvrpcpb.Context) (string, uint64, *errorpb.Error) {
	asked := ctx.GetPeer().GetStoreId()
	if asked != v.storeID {
		return "", 0, &errorpb.Error{
			Message:       fmt.Sprintf("to store id %d, mine %d", asked, v.storeID),
			StoreNotMatch: &errorpb.StoreNotMatch{RequestStoreId: asked, ActualStoreId: v.storeID},
		}
	}
	return v.topo.store(v.storeID).Address, v.storeID, nil
}

// SplitRegion splits at each of the given user keys and answers all parts in the order of their keys.
func (v *storeView) SplitRegion(req *kvrpcpb.SplitRegionRequest) *kvrpcpb.SplitRegionResponse {
	if req.GetIsRawKv() {
		return splitRefused("split at raw keys is not served")
	}
	keys := req.GetSplitKeys()
	if len(keys) == 0 && len(req.GetSplitKey()) > 0 { //nolint:staticcheck // the old field is still part of the protocol
		keys = [][]byte{req.GetSplitKey()} //nolint:staticcheck
	}
	if err := v.checkKeys(req.GetContext(), false, keys...); err != nil {
		return &kvrpcpb.SplitRegionResponse{RegionError: err}
	}
	old := v.topo.byID(req.GetContext().GetRegionId())
	for _, key := range keys {
		if _, _, err := v.topo.split(key); err != nil {
			return splitRefused(err.Error())
		}
	}
	var parts []*metapb.Region
	for _, part := range v.topo.scan(old.meta.StartKey, old.meta.EndKey, 0) {
		parts = append(parts, part.meta)
	}
	return &kvrpcpb.SplitRegionResponse{Regions: parts}
}

func splitRefused(why string) *kvrpcpb.SplitRegionResponse {
	return &kvrpcpb.SplitRegionResponse{RegionError: &errorpb.Error{Message: why}}
}

func (v *storeView) GetStoreIDByAddr(address string) (uint64, error) {
	for _, s := range v.topo.allStores() {
		if s.Address == address {
			return s.Id, nil
		}
	}
	return 0, errors.New("no such store")
}

func (v *storeView) GetStoreAddrByStoreID(id uint64) (string, error) {
	if s := v.topo.store(id); s != nil {
		return s.Address, nil
	}
	return "", errors.New("no such store")
}

func (v *storeView) Close() error { return nil }

// storeServer is one store's Tikv service: unistore, with its gaps filled.
//
// Each transactional method which names keys is wrapped to refuse keys of another region; Raw* is in raw.go and
// BatchCommands in batch.go.
type storeServer struct {
	*tikv.Server
	view *storeView
	raw  *rawEngine
}

func newStoreServer(topo *topology, storeID uint64, e *engine, raw *rawEngine) *storeServer {
	view := &storeView{topo: topo, storeID: storeID}
	return &storeServer{Server: tikv.NewServer(view, e.mvcc, e.inner), view: view, raw: raw}
}

// KvGet sets not_found, which unistore leaves out. An empty value cannot be stored, so empty means absent.
func (s *storeServer) KvGet(ctx context.Context, req *kvrpcpb.GetRequest) (*kvrpcpb.GetResponse, error) {
	if err := s.view.checkKeys(req.Context, false, req.Key); err != nil {
		return &kvrpcpb.GetResponse{RegionError: err}, nil
	}
	resp, err := s.Server.KvGet(ctx, req)
	if err == nil && resp.RegionError == nil && resp.Error == nil && len(resp.Value) == 0 {
		resp.NotFound = true
	}
	return resp, err
}

// KvBatchGet implements the Tikv service.
func (s *storeServer) KvBatchGet(ctx context.Context, req *kvrpcpb.BatchGetRequest) (*kvrpcpb.BatchGetResponse, error) {
	if err := s.view.checkKeys(req.Context, false, req.Keys...); err != nil {
		return &kvrpcpb.BatchGetResponse{RegionError: err}, nil
	}
	return s.Server.KvBatchGet(ctx, req)
}

// KvPrewrite implements the Tikv service.
func (s *storeServer) KvPrewrite(ctx context.Context, req *kvrpcpb.PrewriteRequest) (*kvrpcpb.PrewriteResponse, error) {
	if err := s.view.checkKeys(req.Context, false, mutationKeys(req.Mutations)...); err != nil {
		return &kvrpcpb.PrewriteResponse{RegionError: err}, nil
	}
	return s.Server.KvPrewrite(ctx, req)
}

func mutationKeys(mutations []*kvrpcpb.Mutation) [][]byte {
	keys := make([][]byte, len(mutations))
	for i, m := range mutations {
		keys[i] = m.Key
	}
	return keys
}

// KvCommit implements the Tikv service.
func (s *storeServer) KvCommit(ctx context.Context, req *kvrpcpb.CommitRequest) (*kvrpcpb.CommitResponse, error) {
	if err := s.view.checkKeys(req.Context, false, req.Keys...); err != nil {
		return &kvrpcpb.CommitResponse{RegionError: err}, nil
	}
	return s.Server.KvCommit(ctx, req)
}

// KvBatchRollback implements the Tikv service.
func (s *storeServer) KvBatchRollback(ctx context.Context, req *kvrpcpb.BatchRollbackRequest) (*kvrpcpb.BatchRollbackResponse, error) {
	if err := s.view.checkKeys(req.Context, false, req.Keys...); err != nil {
		return &kvrpcpb.BatchRollbackResponse{RegionError: err}, nil
	}
	return s.Server.KvBatchRollback(ctx, req)
}

// KvCleanup implements the Tikv service.
func (s *storeServer) KvCleanup(ctx context.Context, req *kvrpcpb.CleanupRequest) (*kvrpcpb.CleanupResponse, error) {
	if err := s.view.checkKeys(req.Context, false, req.Key); err != nil {
		return &kvrpcpb.CleanupResponse{RegionError: err}, nil
	}
	return s.Server.KvCleanup(ctx, req)
}

// KvPessimisticLock implements the Tikv service.
func (s *storeServer) KvPessimisticLock(ctx context.Context, req *kvrpcpb.PessimisticLockRequest) (*kvrpcpb.PessimisticLockResponse, error) {
	if err := s.view.checkKeys(req.Context, false, mutationKeys(req.Mutations)...); err != nil {
		return &kvrpcpb.PessimisticLockResponse{RegionError: err}, nil
	}
	return s.Server.KvPessimisticLock(ctx, req)
}

// KVPessimisticRollback implements the Tikv service.
func (s *storeServer) KVPessimisticRollback(ctx context.Context, req *kvrpcpb.PessimisticRollbackRequest) (*kvrpcpb.PessimisticRollbackResponse, error) {
	if err := s.view.checkKeys(req.Context, false, req.Keys...); err != nil {
		return &kvrpcpb.PessimisticRollbackResponse{RegionError: err}, nil
	}
	return s.Server.KVPessimisticRollback(ctx, req)
}

// KvTxnHeartBeat implements the Tikv service.
func (s *storeServer) KvTxnHeartBeat(ctx context.Context, req *kvrpcpb.TxnHeartBeatRequest) (*kvrpcpb.TxnHeartBeatResponse, error) {
	if err := s.view.checkKeys(req.Context, false, req.PrimaryLock); err != nil {
		return &kvrpcpb.TxnHeartBeatResponse{RegionError: err}, nil
	}
	return s.Server.KvTxnHeartBeat(ctx, req)
}

// KvCheckTxnStatus implements the Tikv service.
func (s *storeServer) KvCheckTxnStatus(ctx context.Context, req *kvrpcpb.CheckTxnStatusRequest) (*kvrpcpb.CheckTxnStatusResponse, error) {
	if err := s.view.checkKeys(req.Context, false, req.PrimaryKey); err != nil {
		return &kvrpcpb.CheckTxnStatusResponse{RegionError: err}, nil
	}
	return s.Server.KvCheckTxnStatus(ctx, req)
}

// KvCheckSecondaryLocks implements the Tikv service.
func (s *storeServer) KvCheckSecondaryLocks(ctx context.Context, req *kvrpcpb.CheckSecondaryLocksRequest) (*kvrpcpb.CheckSecondaryLocksResponse, error) {
	if err := s.view.checkKeys(req.Context, false, req.Keys...); err != nil {
		return &kvrpcpb.CheckSecondaryLocksResponse{RegionError: err}, nil
	}
	return s.Server.KvCheckSecondaryLocks(ctx, req)
}

// KvResolveLock implements the Tikv service.
func (s *storeServer) KvResolveLock(ctx context.Context, req *kvrpcpb.ResolveLockRequest) (*kvrpcpb.ResolveLockResponse, error) {
	if err := s.view.checkKeys(req.Context, false, req.Keys...); err != nil {
		return &kvrpcpb.ResolveLockResponse{RegionError: err}, nil
	}
	return s.Server.KvResolveLock(ctx, req)
}

// MvccGetByKey implements the Tikv service.
func (s *storeServer) MvccGetByKey(ctx context.Context, req *kvrpcpb.MvccGetByKeyRequest) (*kvrpcpb.MvccGetByKeyResponse, error) {
	if err := s.view.checkKeys(req.Context, false, req.Key); err != nil {
		return &kvrpcpb.MvccGetByKeyResponse{RegionError: err}, nil
	}
	return s.Server.MvccGetByKey(ctx, req)
}
