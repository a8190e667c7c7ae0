package main

import (
	"github.com/pingcap/kvproto/pkg/metapb"
	"github.com/pingcap/kvproto/pkg/pdpb"
)

// Messages which kvproto's module of 2022 does not have, as far as they are served: the protobuf library reads the tags.

// message makes a struct a protobuf message.
type message struct{}

func (*message) Reset()         {}
func (*message) String() string { return "" }
func (*message) ProtoMessage()  {}

type clusterInfoRequest struct {
	message
}

type clusterInfoResponse struct {
	message
	Header       *pdpb.ResponseHeader `protobuf:"bytes,1,opt,name=header,proto3"`
	ServiceModes []int32              `protobuf:"varint,2,rep,packed,name=service_modes,proto3"`
}

type minTSRequest struct {
	message
	Header *pdpb.RequestHeader `protobuf:"bytes,1,opt,name=header,proto3"`
}

type minTSResponse struct {
	message
	Header    *pdpb.ResponseHeader `protobuf:"bytes,1,opt,name=header,proto3"`
	Timestamp *pdpb.Timestamp      `protobuf:"bytes,2,opt,name=timestamp,proto3"`
}

type queryRegionRequest struct {
	message
	Header   *pdpb.RequestHeader `protobuf:"bytes,1,opt,name=header,proto3"`
	IDs      []uint64            `protobuf:"varint,3,rep,packed,name=ids,proto3"`
	Keys     [][]byte            `protobuf:"bytes,4,rep,name=keys,proto3"`
	PrevKeys [][]byte            `protobuf:"bytes,5,rep,name=prev_keys,proto3"`
}

type queryRegionResponse struct {
	message
	Header       *pdpb.ResponseHeader       `protobuf:"bytes,1,opt,name=header,proto3"`
	KeyIDMap     []uint64                   `protobuf:"varint,2,rep,packed,name=key_id_map,proto3"`
	PrevKeyIDMap []uint64                   `protobuf:"varint,3,rep,packed,name=prev_key_id_map,proto3"`
	RegionsByID  map[uint64]*regionResponse `protobuf:"bytes,4,rep,name=regions_by_id,proto3" protobuf_key:"varint,1,opt,name=key,proto3" protobuf_val:"bytes,2,opt,name=value,proto3"`
}

type regionResponse struct {
	message
	Region *metapb.Region `protobuf:"bytes,1,opt,name=region,proto3"`
	Leader *metapb.Peer   `protobuf:"bytes,2,opt,name=leader,proto3"`
}

type batchScanRegionsRequest struct {
	message
	Header *pdpb.RequestHeader `protobuf:"bytes,1,opt,name=header,proto3"`
	Ranges []*keyRange         `protobuf:"bytes,3,rep,name=ranges,proto3"`
	Limit  int32               `protobuf:"varint,4,opt,name=limit,proto3"`
}

type keyRange struct {
	message
	StartKey []byte `protobuf:"bytes,1,opt,name=start_key,proto3"`
	EndKey   []byte `protobuf:"bytes,2,opt,name=end_key,proto3"`
}

type batchScanRegionsResponse struct {
	message
	Header  *pdpb.ResponseHeader `protobuf:"bytes,1,opt,name=header,proto3"`
	Regions []*regionInfo        `protobuf:"bytes,2,rep,name=regions,proto3"`
}

type regionInfo struct {
	message
	Region *metapb.Region `protobuf:"bytes,1,opt,name=region,proto3"`
	Leader *metapb.Peer   `protobuf:"bytes,2,opt,name=leader,proto3"`
}

type keyspaceScope struct {
	message
	KeyspaceID uint32 `protobuf:"varint,1,opt,name=keyspace_id,proto3"`
}

type gcStateRequest struct {
	message
	Header *pdpb.RequestHeader `protobuf:"bytes,1,opt,name=header,proto3"`
	Scope  *keyspaceScope      `protobuf:"bytes,2,opt,name=keyspace_scope,proto3"`
}

type gcStateResponse struct {
	message
	Header *pdpb.ResponseHeader `protobuf:"bytes,1,opt,name=header,proto3"`
	State  *gcState             `protobuf:"bytes,2,opt,name=gc_state,proto3"`
}

type gcState struct {
	message
	Scope        *keyspaceScope `protobuf:"bytes,1,opt,name=keyspace_scope,proto3"`
	TxnSafePoint uint64         `protobuf:"varint,3,opt,name=txn_safe_point,proto3"`
	GCSafePoint  uint64         `protobuf:"varint,4,opt,name=gc_safe_point,proto3"`
	Barriers     []*gcBarrier   `protobuf:"bytes,5,rep,name=gc_barriers,proto3"`
}

type gcBarrier struct {
	message
	ID         string `protobuf:"bytes,1,opt,name=barrier_id,proto3"`
	TS         uint64 `protobuf:"varint,2,opt,name=barrier_ts,proto3"`
	TTLSeconds int64  `protobuf:"varint,3,opt,name=ttl_seconds,proto3"`
}

type headerOnlyRequest struct {
	message
	Header *pdpb.RequestHeader `protobuf:"bytes,1,opt,name=header,proto3"`
}

type allGCStatesResponse struct {
	message
	Header *pdpb.ResponseHeader `protobuf:"bytes,1,opt,name=header,proto3"`
	States []*gcState           `protobuf:"bytes,2,rep,name=gc_states,proto3"`
}

// advanceRequest is AdvanceTxnSafePointRequest and AdvanceGCSafePointRequest.
type advanceRequest struct {
	message
	Header *pdpb.RequestHeader `protobuf:"bytes,1,opt,name=header,proto3"`
	Scope  *keyspaceScope      `protobuf:"bytes,2,opt,name=keyspace_scope,proto3"`
	Target uint64              `protobuf:"varint,3,opt,name=target,proto3"`
}

type advanceResponse struct {
	message
	Header  *pdpb.ResponseHeader `protobuf:"bytes,1,opt,name=header,proto3"`
	Old     uint64               `protobuf:"varint,2,opt,name=old_safe_point,proto3"`
	New     uint64               `protobuf:"varint,3,opt,name=new_safe_point,proto3"`
	Blocker string               `protobuf:"bytes,4,opt,name=blocker_description,proto3"`
}

// setBarrierRequest is SetGCBarrierRequest, and DeleteGCBarrierRequest without its last two fields.
type setBarrierRequest struct {
	message
	Header     *pdpb.RequestHeader `protobuf:"bytes,1,opt,name=header,proto3"`
	Scope      *keyspaceScope      `protobuf:"bytes,2,opt,name=keyspace_scope,proto3"`
	ID         string              `protobuf:"bytes,3,opt,name=barrier_id,proto3"`
	TS         uint64              `protobuf:"varint,4,opt,name=barrier_ts,proto3"`
	TTLSeconds int64               `protobuf:"varint,5,opt,name=ttl_seconds,proto3"`
}

type barrierResponse struct {
	message
	Header  *pdpb.ResponseHeader `protobuf:"bytes,1,opt,name=header,proto3"`
	Barrier *gcBarrier           `protobuf:"bytes,2,opt,name=barrier_info,proto3"`
}

type metaHeader struct {
	message
	ClusterID uint64 `protobuf:"varint,1,opt,name=cluster_id,proto3"`
	Revision  int64  `protobuf:"varint,3,opt,name=revision,proto3"`
}

type metaGetRequest struct {
	message
	Key      []byte `protobuf:"bytes,2,opt,name=key,proto3"`
	RangeEnd []byte `protobuf:"bytes,3,opt,name=range_end,proto3"`
	Limit    int64  `protobuf:"varint,4,opt,name=limit,proto3"`
}

type metaGetResponse struct {
	message
	Header *metaHeader     `protobuf:"bytes,1,opt,name=header,proto3"`
	Kvs    []*metaKeyValue `protobuf:"bytes,2,rep,name=kvs,proto3"`
	More   bool            `protobuf:"varint,3,opt,name=more,proto3"`
	Count  int64           `protobuf:"varint,4,opt,name=count,proto3"`
}

type metaKeyValue struct {
	message
	Key            []byte `protobuf:"bytes,1,opt,name=key,proto3"`
	CreateRevision int64  `protobuf:"varint,2,opt,name=create_revision,proto3"`
	ModRevision    int64  `protobuf:"varint,3,opt,name=mod_revision,proto3"`
	Version        int64  `protobuf:"varint,4,opt,name=version,proto3"`
	Value          []byte `protobuf:"bytes,5,opt,name=value,proto3"`
}

type metaPutRequest struct {
	message
	Key   []byte `protobuf:"bytes,2,opt,name=key,proto3"`
	Value []byte `protobuf:"bytes,3,opt,name=value,proto3"`
}

type metaPutResponse struct {
	message
	Header *metaHeader `protobuf:"bytes,1,opt,name=header,proto3"`
}

// GetHeader lets checkCluster look at the requests which are bound to one cluster.

func (m *minTSRequest) GetHeader() *pdpb.RequestHeader            { return m.Header }
func (m *queryRegionRequest) GetHeader() *pdpb.RequestHeader      { return m.Header }
func (m *batchScanRegionsRequest) GetHeader() *pdpb.RequestHeader { return m.Header }
func (m *gcStateRequest) GetHeader() *pdpb.RequestHeader          { return m.Header }
func (m *headerOnlyRequest) GetHeader() *pdpb.RequestHeader       { return m.Header }
func (m *advanceRequest) GetHeader() *pdpb.RequestHeader          { return m.Header }
func (m *setBarrierRequest) GetHeader() *pdpb.RequestHeader       { return m.Header }
