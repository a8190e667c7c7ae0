package main

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/pingcap/kvproto/pkg/keyspacepb"
	"github.com/pingcap/kvproto/pkg/metapb"
	"github.com/pingcap/kvproto/pkg/pdpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// pdServer is the placement driver: one member, always the leader.
type pdServer struct {
	pdpb.UnimplementedPDServer
	topo  *topology
	clock *oracle
	gc    *safePoints
	addr  string
}

func (p *pdServer) url() string { return "http://" + p.addr }

func (p *pdServer) header() *pdpb.ResponseHeader { return &pdpb.ResponseHeader{ClusterId: clusterID} }

func failed(kind pdpb.ErrorType, message string) *pdpb.ResponseHeader {
	return &pdpb.ResponseHeader{ClusterId: clusterID, Error: &pdpb.Error{Type: kind, Message: message}}
}

// checkCluster refuses a request that was meant for another cluster, in PD's words.
func checkCluster(req any) error {
	if _, any := req.(*pdpb.GetMembersRequest); any {
		return nil
	}
	r, ok := req.(interface{ GetHeader() *pdpb.RequestHeader })
	if !ok || r.GetHeader().GetClusterId() == clusterID {
		return nil
	}
	return status.Error(codes.FailedPrecondition,
		fmt.Sprintf("mismatch cluster id, need %d but got %d", uint64(clusterID), r.GetHeader().GetClusterId()))
}

// GetMembers implements the PD service.
func (p *pdServer) GetMembers(context.Context, *pdpb.GetMembersRequest) (*pdpb.GetMembersResponse, error) {
	me := &pdpb.Member{Name: "pd", MemberId: 1, PeerUrls: []string{p.url()}, ClientUrls: []string{p.url()}}
	return &pdpb.GetMembersResponse{
		Header: p.header(), Members: []*pdpb.Member{me}, Leader: me, EtcdLeader: me,
		TsoAllocatorLeaders: map[string]*pdpb.Member{"global": me},
	}, nil
}

// Tso implements the PD service.
func (p *pdServer) Tso(stream pdpb.PD_TsoServer) error {
	for {
		req, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := checkCluster(req); err != nil {
			return err
		}
		if req.Count == 0 {
			return status.Error(codes.Unknown, "tso count should be positive")
		}
		physical, logical := splitTS(p.clock.next(req.Count))
		answer := &pdpb.TsoResponse{
			Header: p.header(), Count: req.Count, Timestamp: &pdpb.Timestamp{Physical: physical, Logical: logical},
		}
		if err := stream.Send(answer); err != nil {
			return err
		}
	}
}

// Bootstrap implements the PD service.
func (p *pdServer) Bootstrap(context.Context, *pdpb.BootstrapRequest) (*pdpb.BootstrapResponse, error) {
	header := failed(pdpb.ErrorType_ALREADY_BOOTSTRAPPED, "cluster is already bootstrapped")
	return &pdpb.BootstrapResponse{Header: header}, nil
}

// IsBootstrapped implements the PD service.
func (p *pdServer) IsBootstrapped(context.Context, *pdpb.IsBootstrappedRequest) (*pdpb.IsBootstrappedResponse, error) {
	return &pdpb.IsBootstrappedResponse{Header: p.header(), Bootstrapped: true}, nil
}

// AllocID implements the PD service.
func (p *pdServer) AllocID(context.Context, *pdpb.AllocIDRequest) (*pdpb.AllocIDResponse, error) {
	id, err := p.topo.AllocID()
	return &pdpb.AllocIDResponse{Header: p.header(), Id: id}, err
}

// GetStore implements the PD service.
func (p *pdServer) GetStore(_ context.Context, req *pdpb.GetStoreRequest) (*pdpb.GetStoreResponse, error) {
	if s := p.topo.store(req.StoreId); s != nil {
		return &pdpb.GetStoreResponse{Header: p.header(), Store: s, Stats: &pdpb.StoreStats{StoreId: s.Id}}, nil
	}
	header := failed(pdpb.ErrorType_UNKNOWN, fmt.Sprintf("invalid store ID %d, not found", req.StoreId))
	return &pdpb.GetStoreResponse{Header: header}, nil
}

// GetAllStores implements the PD service.
func (p *pdServer) GetAllStores(context.Context, *pdpb.GetAllStoresRequest) (*pdpb.GetAllStoresResponse, error) {
	return &pdpb.GetAllStoresResponse{Header: p.header(), Stores: p.topo.allStores()}, nil
}

func (p *pdServer) answer(r *region) *pdpb.GetRegionResponse {
	if r == nil {
		return &pdpb.GetRegionResponse{Header: p.header()}
	}
	return &pdpb.GetRegionResponse{Header: p.header(), Region: r.meta, Leader: r.leader}
}

// GetRegion implements the PD service.
func (p *pdServer) GetRegion(_ context.Context, req *pdpb.GetRegionRequest) (*pdpb.GetRegionResponse, error) {
	return p.answer(p.topo.byKey(req.RegionKey)), nil
}

// GetPrevRegion implements the PD service.
func (p *pdServer) GetPrevRegion(_ context.Context, req *pdpb.GetRegionRequest) (*pdpb.GetRegionResponse, error) {
	return p.answer(p.topo.byPreviousKey(req.RegionKey)), nil
}

// GetRegionByID implements the PD service.
func (p *pdServer) GetRegionByID(_ context.Context, req *pdpb.GetRegionByIDRequest) (*pdpb.GetRegionResponse, error) {
	return p.answer(p.topo.byID(req.RegionId)), nil
}

// ScanRegions implements the PD service.
func (p *pdServer) ScanRegions(_ context.Context, req *pdpb.ScanRegionsRequest) (*pdpb.ScanRegionsResponse, error) {
	resp := &pdpb.ScanRegionsResponse{Header: p.header()}
	for _, r := range p.topo.scan(req.StartKey, req.EndKey, int(req.Limit)) {
		resp.RegionMetas = append(resp.RegionMetas, r.meta)
		resp.Leaders = append(resp.Leaders, r.leader)
		resp.Regions = append(resp.Regions, &pdpb.Region{Region: r.meta, Leader: r.leader})
	}
	return resp, nil
}

// GetClusterConfig implements the PD service.
func (p *pdServer) GetClusterConfig(context.Context, *pdpb.GetClusterConfigRequest) (*pdpb.GetClusterConfigResponse, error) {
	cluster := &metapb.Cluster{Id: clusterID, MaxPeerCount: uint32(len(p.topo.allStores()))}
	return &pdpb.GetClusterConfigResponse{Header: p.header(), Cluster: cluster}, nil
}

// ScatterRegion claims success: where regions lie here changes by the admin channel alone.
func (p *pdServer) ScatterRegion(context.Context, *pdpb.ScatterRegionRequest) (*pdpb.ScatterRegionResponse, error) {
	return &pdpb.ScatterRegionResponse{Header: p.header(), FinishedPercentage: 100}, nil
}

// GetOperator tells that whatever was asked of a region is done.
func (p *pdServer) GetOperator(_ context.Context, req *pdpb.GetOperatorRequest) (*pdpb.GetOperatorResponse, error) {
	return &pdpb.GetOperatorResponse{
		Header: p.header(), RegionId: req.RegionId, Desc: []byte("scatter-region"), Status: pdpb.OperatorStatus_SUCCESS,
	}, nil
}

// SplitRegions splits at keys which, unlike in SplitRegion of a store, come encoded.
func (p *pdServer) SplitRegions(_ context.Context, req *pdpb.SplitRegionsRequest) (*pdpb.SplitRegionsResponse, error) {
	ids, err := p.splitAt(req.SplitKeys)
	if err != nil {
		return nil, status.Error(codes.Unknown, err.Error())
	}
	return &pdpb.SplitRegionsResponse{Header: p.header(), FinishedPercentage: 100, RegionsId: ids}, nil
}

// SplitAndScatterRegions splits as SplitRegions does.
func (p *pdServer) SplitAndScatterRegions(_ context.Context, req *pdpb.SplitAndScatterRegionsRequest) (*pdpb.SplitAndScatterRegionsResponse, error) {
	ids, err := p.splitAt(req.SplitKeys)
	if err != nil {
		return nil, status.Error(codes.Unknown, err.Error())
	}
	return &pdpb.SplitAndScatterRegionsResponse{
		Header: p.header(), SplitFinishedPercentage: 100, ScatterFinishedPercentage: 100, RegionsId: ids,
	}, nil
}

func (p *pdServer) splitAt(keys [][]byte) ([]uint64, error) {
	var ids []uint64
	for _, encoded := range keys {
		key, err := userKey(encoded)
		if err != nil {
			return nil, err
		}
		left, _, err := p.topo.split(key)
		if err != nil {
			return nil, err
		}
		ids = append(ids, left.meta.Id)
	}
	return ids, nil
}

// GetGCSafePoint implements the PD service.
func (p *pdServer) GetGCSafePoint(context.Context, *pdpb.GetGCSafePointRequest) (*pdpb.GetGCSafePointResponse, error) {
	return &pdpb.GetGCSafePointResponse{Header: p.header(), SafePoint: p.gc.get()}, nil
}

// UpdateGCSafePoint implements the PD service.
func (p *pdServer) UpdateGCSafePoint(_ context.Context, req *pdpb.UpdateGCSafePointRequest) (*pdpb.UpdateGCSafePointResponse, error) {
	_, now := p.gc.advance(req.SafePoint)
	return &pdpb.UpdateGCSafePointResponse{Header: p.header(), NewSafePoint: now}, nil
}

// UpdateServiceGCSafePoint implements the PD service.
func (p *pdServer) UpdateServiceGCSafePoint(_ context.Context, req *pdpb.UpdateServiceGCSafePointRequest) (*pdpb.UpdateServiceGCSafePointResponse, error) {
	service, ttl, minimum := p.gc.setService(string(req.ServiceId), req.TTL, req.SafePoint)
	return &pdpb.UpdateServiceGCSafePointResponse{
		Header: p.header(), ServiceId: []byte(service), TTL: ttl, MinSafePoint: minimum,
	}, nil
}

// GetExternalTimestamp implements the PD service.
func (p *pdServer) GetExternalTimestamp(context.Context, *pdpb.GetExternalTimestampRequest) (*pdpb.GetExternalTimestampResponse, error) {
	return &pdpb.GetExternalTimestampResponse{Header: p.header(), Timestamp: p.gc.external.Load()}, nil
}

// SetExternalTimestamp implements the PD service.
func (p *pdServer) SetExternalTimestamp(_ context.Context, req *pdpb.SetExternalTimestampRequest) (*pdpb.SetExternalTimestampResponse, error) {
	p.gc.external.Store(req.Timestamp)
	return &pdpb.SetExternalTimestampResponse{Header: p.header()}, nil
}

// keyspaceServer knows the default keyspace alone.
type keyspaceServer struct {
	keyspacepb.UnimplementedKeyspaceServer
	pd *pdServer
}

const defaultKeyspace = "DEFAULT"

// LoadKeyspace implements the Keyspace service.
func (k *keyspaceServer) LoadKeyspace(_ context.Context, req *keyspacepb.LoadKeyspaceRequest) (*keyspacepb.LoadKeyspaceResponse, error) {
	if req.Name != defaultKeyspace {
		return &keyspacepb.LoadKeyspaceResponse{Header: failed(pdpb.ErrorType_ENTRY_NOT_FOUND, "keyspace does not exist")}, nil
	}
	meta := &keyspacepb.KeyspaceMeta{Name: defaultKeyspace, State: keyspacepb.KeyspaceState_ENABLED}
	return &keyspacepb.LoadKeyspaceResponse{Header: k.pd.header(), Keyspace: meta}, nil
}
