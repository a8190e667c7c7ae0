package main

import (
	"bytes"
	"context"
	"sort"
	"sync"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
)

// etcdServer is as much of the etcd inside PD as clients use: the member list, and a small map for the safe point and
// for meta storage.
type etcdServer struct {
	etcdserverpb.UnimplementedKVServer
	etcdserverpb.UnimplementedClusterServer
	pd *pdServer

	mu       sync.Mutex
	revision int64
	values   map[string]*mvccpb.KeyValue
}

func newEtcdServer(pd *pdServer) *etcdServer {
	return &etcdServer{pd: pd, revision: 1, values: make(map[string]*mvccpb.KeyValue)}
}

func (e *etcdServer) header() *etcdserverpb.ResponseHeader {
	return &etcdserverpb.ResponseHeader{ClusterId: clusterID, MemberId: 1, Revision: e.revision, RaftTerm: 1}
}

// MemberList implements the etcd Cluster service.
func (e *etcdServer) MemberList(context.Context, *etcdserverpb.MemberListRequest) (*etcdserverpb.MemberListResponse, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	me := &etcdserverpb.Member{ID: 1, Name: "pd", PeerURLs: []string{e.pd.url()}, ClientURLs: []string{e.pd.url()}}
	return &etcdserverpb.MemberListResponse{Header: e.header(), Members: []*etcdserverpb.Member{me}}, nil
}

// Range implements the etcd KV service for the current revision.
func (e *etcdServer) Range(_ context.Context, req *etcdserverpb.RangeRequest) (*etcdserverpb.RangeResponse, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	found := e.find(req.Key, req.RangeEnd)
	resp := &etcdserverpb.RangeResponse{Header: e.header(), Count: int64(len(found))}
	if req.Limit > 0 && int64(len(found)) > req.Limit {
		found, resp.More = found[:req.Limit], true
	}
	resp.Kvs = found
	return resp, nil
}

// Put implements the etcd KV service.
func (e *etcdServer) Put(_ context.Context, req *etcdserverpb.PutRequest) (*etcdserverpb.PutResponse, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.revision++
	old := e.values[string(req.Key)]
	kv := &mvccpb.KeyValue{Key: req.Key, Value: req.Value, CreateRevision: e.revision, ModRevision: e.revision, Version: 1}
	if old != nil {
		kv.CreateRevision, kv.Version = old.CreateRevision, old.Version+1
	}
	e.values[string(req.Key)] = kv
	resp := &etcdserverpb.PutResponse{Header: e.header()}
	if req.PrevKv {
		resp.PrevKv = old
	}
	return resp, nil
}

// DeleteRange implements the etcd KV service.
func (e *etcdServer) DeleteRange(_ context.Context, req *etcdserverpb.DeleteRangeRequest) (*etcdserverpb.DeleteRangeResponse, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	found := e.find(req.Key, req.RangeEnd)
	for _, kv := range found {
		delete(e.values, string(kv.Key))
	}
	if len(found) > 0 {
		e.revision++
	}
	return &etcdserverpb.DeleteRangeResponse{Header: e.header(), Deleted: int64(len(found))}, nil
}

// find lists by etcd's rule: no end means the one key, an end of a single zero byte means no bound.
func (e *etcdServer) find(key, end []byte) []*mvccpb.KeyValue {
	var found []*mvccpb.KeyValue
	unbounded := bytes.Equal(end, []byte{0})
	for _, kv := range e.values {
		within := bytes.Compare(kv.Key, key) >= 0 && (unbounded || bytes.Compare(kv.Key, end) < 0)
		if len(end) == 0 {
			within = bytes.Equal(kv.Key, key)
		}
		if within {
			found = append(found, kv)
		}
	}
	sort.Slice(found, func(i, j int) bool { return bytes.Compare(found[i].Key, found[j].Key) < 0 })
	return found
}
