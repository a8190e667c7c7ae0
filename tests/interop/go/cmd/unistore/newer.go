package main

import (
	"context"
	"errors"
	"io"

	"github.com/pingcap/kvproto/pkg/pdpb"
	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// The kvproto module of 2022 lacks what later clients ask of PD. Such methods land in gRPC's handler for unknown
// methods; their messages are in newer_messages.go.

// protoMessage is what gRPC's codec encodes.
type protoMessage interface {
	Reset()
	String() string
	ProtoMessage()
}

type newerServer struct {
	pd   *pdServer
	etcd *etcdServer
}

func (n *newerServer) handle(_ any, stream grpc.ServerStream) error {
	method, _ := grpc.MethodFromServerStream(stream)
	switch method {
	case "/pdpb.PD/GetClusterInfo":
		return unary(stream, n.clusterInfo)
	case "/pdpb.PD/GetMinTS":
		return unary(stream, n.minTS)
	case "/pdpb.PD/QueryRegion":
		return n.queryRegion(stream)
	case "/pdpb.PD/BatchScanRegions":
		return unary(stream, n.batchScanRegions)
	case "/pdpb.PD/GetGCState":
		return unary(stream, n.gcState)
	case "/pdpb.PD/GetAllKeyspacesGCStates":
		return unary(stream, n.allGCStates)
	case "/pdpb.PD/AdvanceTxnSafePoint":
		return unary(stream, n.advanceTxnSafePoint)
	case "/pdpb.PD/AdvanceGCSafePoint":
		return unary(stream, n.advanceGCSafePoint)
	case "/pdpb.PD/SetGCBarrier":
		return unary(stream, n.setBarrier)
	case "/pdpb.PD/DeleteGCBarrier":
		return unary(stream, n.deleteBarrier)
	case "/meta_storagepb.MetaStorage/Get":
		return unary(stream, n.metaGet)
	case "/meta_storagepb.MetaStorage/Put":
		return unary(stream, n.metaPut)
	default:
		return status.Errorf(codes.Unimplemented, "%s is not served here", method)
	}
}

// unary serves one request with one response on a stream of unknown type.
func unary[Q any, P interface {
	*Q
	protoMessage
}, R protoMessage](stream grpc.ServerStream, serve func(P) (R, error)) error {
	req := P(new(Q))
	if err := stream.RecvMsg(req); err != nil {
		return err
	}
	if err := checkCluster(req); err != nil {
		return err
	}
	resp, err := serve(req)
	if err != nil {
		return err
	}
	return stream.SendMsg(resp)
}

const pdServiceMode = 1

func (n *newerServer) clusterInfo(*clusterInfoRequest) (*clusterInfoResponse, error) {
	return &clusterInfoResponse{Header: n.pd.header(), ServiceModes: []int32{pdServiceMode}}, nil
}

func (n *newerServer) minTS(*minTSRequest) (*minTSResponse, error) {
	physical, logical := splitTS(n.pd.clock.now())
	return &minTSResponse{Header: n.pd.header(), Timestamp: &pdpb.Timestamp{Physical: physical, Logical: logical}}, nil
}

func (n *newerServer) queryRegion(stream grpc.ServerStream) error {
	for {
		req := &queryRegionRequest{}
		err := stream.RecvMsg(req)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := checkCluster(req); err != nil {
			return err
		}
		if err := stream.SendMsg(n.regionsOf(req)); err != nil {
			return err
		}
	}
}

// regionsOf answers id 0 where nothing was found.
func (n *newerServer) regionsOf(req *queryRegionRequest) *queryRegionResponse {
	resp := &queryRegionResponse{Header: n.pd.header(), RegionsByID: make(map[uint64]*regionResponse)}
	add := func(r *region) uint64 {
		if r == nil {
			return 0
		}
		resp.RegionsByID[r.meta.Id] = &regionResponse{Region: r.meta, Leader: r.leader}
		return r.meta.Id
	}
	for _, key := range req.Keys {
		resp.KeyIDMap = append(resp.KeyIDMap, add(n.pd.topo.byKey(key)))
	}
	for _, key := range req.PrevKeys {
		resp.PrevKeyIDMap = append(resp.PrevKeyIDMap, add(n.pd.topo.byPreviousKey(key)))
	}
	for _, id := range req.IDs {
		add(n.pd.topo.byID(id))
	}
	return resp
}

func (n *newerServer) batchScanRegions(req *batchScanRegionsRequest) (*batchScanRegionsResponse, error) {
	resp := &batchScanRegionsResponse{Header: n.pd.header()}
	var last uint64
	for _, keyRange := range req.Ranges {
		left := 0
		if req.Limit > 0 {
			if left = int(req.Limit) - len(resp.Regions); left <= 0 {
				break
			}
		}
		for _, r := range n.pd.topo.scan(keyRange.StartKey, keyRange.EndKey, left) {
			if r.meta.Id == last {
				continue
			}
			last = r.meta.Id
			resp.Regions = append(resp.Regions, &regionInfo{Region: r.meta, Leader: r.leader})
		}
	}
	return resp, nil
}

const nullKeyspace = 0xffffffff

func (n *newerServer) state() *gcState {
	txn, gc, barriers := n.pd.gc.state()
	state := &gcState{Scope: &keyspaceScope{KeyspaceID: nullKeyspace}, TxnSafePoint: txn, GCSafePoint: gc}
	for _, b := range barriers {
		state.Barriers = append(state.Barriers, &gcBarrier{ID: b.name, TS: b.held.ts, TTLSeconds: b.held.ttl()})
	}
	return state
}

func (n *newerServer) gcState(*gcStateRequest) (*gcStateResponse, error) {
	return &gcStateResponse{Header: n.pd.header(), State: n.state()}, nil
}

func (n *newerServer) allGCStates(*headerOnlyRequest) (*allGCStatesResponse, error) {
	return &allGCStatesResponse{Header: n.pd.header(), States: []*gcState{n.state()}}, nil
}

func (n *newerServer) advanceTxnSafePoint(req *advanceRequest) (*advanceResponse, error) {
	old, now, blocker := n.pd.gc.advanceTxn(req.Target)
	return &advanceResponse{Header: n.pd.header(), Old: old, New: now, Blocker: blocker}, nil
}

func (n *newerServer) advanceGCSafePoint(req *advanceRequest) (*advanceResponse, error) {
	old, now := n.pd.gc.advance(req.Target)
	return &advanceResponse{Header: n.pd.header(), Old: old, New: now}, nil
}

func (n *newerServer) setBarrier(req *setBarrierRequest) (*barrierResponse, error) {
	if !n.pd.gc.setBarrier(req.ID, req.TS, req.TTLSeconds) {
		header := failed(pdpb.ErrorType_UNKNOWN, "the barrier is behind the txn safe point")
		return &barrierResponse{Header: header}, nil
	}
	barrier := &gcBarrier{ID: req.ID, TS: req.TS, TTLSeconds: req.TTLSeconds}
	return &barrierResponse{Header: n.pd.header(), Barrier: barrier}, nil
}

func (n *newerServer) deleteBarrier(req *setBarrierRequest) (*barrierResponse, error) {
	resp := &barrierResponse{Header: n.pd.header()}
	if held, ok := n.pd.gc.removeBarrier(req.ID); ok {
		resp.Barrier = &gcBarrier{ID: req.ID, TS: held.ts, TTLSeconds: held.ttl()}
	}
	return resp, nil
}

func (n *newerServer) metaGet(req *metaGetRequest) (*metaGetResponse, error) {
	found, err := n.etcd.Range(context.Background(), &etcdserverpb.RangeRequest{Key: req.Key, RangeEnd: req.RangeEnd, Limit: req.Limit})
	if err != nil {
		return nil, err
	}
	resp := &metaGetResponse{Header: metaHeaderAt(found.Header.Revision), More: found.More, Count: found.Count}
	for _, kv := range found.Kvs {
		resp.Kvs = append(resp.Kvs, &metaKeyValue{
			Key: kv.Key, Value: kv.Value, CreateRevision: kv.CreateRevision, ModRevision: kv.ModRevision, Version: kv.Version,
		})
	}
	return resp, nil
}

func (n *newerServer) metaPut(req *metaPutRequest) (*metaPutResponse, error) {
	put, err := n.etcd.Put(context.Background(), &etcdserverpb.PutRequest{Key: req.Key, Value: req.Value})
	if err != nil {
		return nil, err
	}
	return &metaPutResponse{Header: metaHeaderAt(put.Header.Revision)}, nil
}

func metaHeaderAt(revision int64) *metaHeader {
	return &metaHeader{ClusterID: clusterID, Revision: revision}
}
