package main

import (
	"context"
	"fmt"
	"os"

	"github.com/pingcap/kvproto/pkg/tikvpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

const (
	maxInFlight  = 4096 // requests of one stream handled at the same time
	maxBatchSize = 128  // responses in one message
)

type batchAnswer struct {
	id   uint64
	resp *tikvpb.BatchCommandsResponse_Response
}

// BatchCommands handles every request of the stream on its own and sends answers as they come, in any order.
func (s *storeServer) BatchCommands(stream tikvpb.Tikv_BatchCommandsServer) error {
	ctx, cancel := context.WithCancel(stream.Context())
	defer cancel()
	answers := make(chan batchAnswer, maxInFlight)
	slots := make(chan struct{}, maxInFlight)
	go sendAnswers(ctx, cancel, stream, answers)
	for {
		batch, err := stream.Recv()
		if err != nil {
			return err
		}
		if len(batch.Requests) != len(batch.RequestIds) {
			return status.Error(codes.InvalidArgument, "as many request ids as requests are needed")
		}
		for i, req := range batch.Requests {
			select {
			case slots <- struct{}{}:
			case <-ctx.Done():
				return ctx.Err()
			}
			go func(id uint64, req *tikvpb.BatchCommandsRequest_Request) {
				answer := batchAnswer{id: id, resp: s.answer(ctx, req)}
				<-slots
				select {
				case answers <- answer:
				case <-ctx.Done():
				}
			}(batch.RequestIds[i], req)
		}
	}
}

func sendAnswers(ctx context.Context, cancel func(), stream tikvpb.Tikv_BatchCommandsServer, answers <-chan batchAnswer) {
	defer cancel()
	for {
		var first batchAnswer
		select {
		case first = <-answers:
		case <-ctx.Done():
			return
		}
		out := &tikvpb.BatchCommandsResponse{}
		add := func(a batchAnswer) {
			out.Responses = append(out.Responses, a.resp)
			out.RequestIds = append(out.RequestIds, a.id)
		}
		add(first)
		for more := true; more && len(out.Responses) < maxBatchSize; {
			select {
			case next := <-answers:
				add(next)
			default:
				more = false
			}
		}
		if err := stream.Send(out); err != nil {
			return
		}
	}
}

// answer runs one command. What cannot be served, because it is unknown or because unistore panicked over it, gets an
// answer without a command, as TiKV gives to a command it does not know.
func (s *storeServer) answer(ctx context.Context, req *tikvpb.BatchCommandsRequest_Request) (resp *tikvpb.BatchCommandsResponse_Response) {
	resp = &tikvpb.BatchCommandsResponse_Response{}
	defer func() {
		if cause := recover(); cause != nil {
			fmt.Fprintf(os.Stderr, "BatchCommands: %T: panic: %v\n", req.Cmd, cause)
			resp = &tikvpb.BatchCommandsResponse_Response{}
		}
	}()
	cmd, err := s.dispatch(ctx, req)
	if err != nil {
		// Of what was cut short because its client has left, there is nothing to tell.
		if ctx.Err() == nil {
			fmt.Fprintf(os.Stderr, "BatchCommands: %T: %v\n", req.Cmd, err)
		}
		return resp
	}
	return cmd
}

type (
	batchRequest  = tikvpb.BatchCommandsRequest_Request
	batchResponse = tikvpb.BatchCommandsResponse_Response
)

func (s *storeServer) dispatch(ctx context.Context, req *batchRequest) (*batchResponse, error) {
	switch c := req.Cmd.(type) {
	case *tikvpb.BatchCommandsRequest_Request_Get:
		r, err := s.KvGet(ctx, c.Get)
		return &batchResponse{Cmd: &tikvpb.BatchCommandsResponse_Response_Get{Get: r}}, err
	case *tikvpb.BatchCommandsRequest_Request_Scan:
		r, err := s.KvScan(ctx, c.Scan)
		return &batchResponse{Cmd: &tikvpb.BatchCommandsResponse_Response_Scan{Scan: r}}, err
	case *tikvpb.BatchCommandsRequest_Request_Prewrite:
		r, err := s.KvPrewrite(ctx, c.Prewrite)
		return &batchResponse{Cmd: &tikvpb.BatchCommandsResponse_Response_Prewrite{Prewrite: r}}, err
	case *tikvpb.BatchCommandsRequest_Request_Commit:
		r, err := s.KvCommit(ctx, c.Commit)
		return &batchResponse{Cmd: &tikvpb.BatchCommandsResponse_Response_Commit{Commit: r}}, err
	case *tikvpb.BatchCommandsRequest_Request_Import:
		r, err := s.KvImport(ctx, c.Import)
		return &batchResponse{Cmd: &tikvpb.BatchCommandsResponse_Response_Import{Import: r}}, err
	case *tikvpb.BatchCommandsRequest_Request_Cleanup:
		r, err := s.KvCleanup(ctx, c.Cleanup)
		return &batchResponse{Cmd: &tikvpb.BatchCommandsResponse_Response_Cleanup{Cleanup: r}}, err
	case *tikvpb.BatchCommandsRequest_Request_BatchGet:
		r, err := s.KvBatchGet(ctx, c.BatchGet)
		return &batchResponse{Cmd: &tikvpb.BatchCommandsResponse_Response_BatchGet{BatchGet: r}}, err
	case *tikvpb.BatchCommandsRequest_Request_BatchRollback:
		r, err := s.KvBatchRollback(ctx, c.BatchRollback)
		return &batchResponse{Cmd: &tikvpb.BatchCommandsResponse_Response_BatchRollback{BatchRollback: r}}, err
	case *tikvpb.BatchCommandsRequest_Request_ScanLock:
		r, err := s.KvScanLock(ctx, c.ScanLock)
		return &batchResponse{Cmd: &tikvpb.BatchCommandsResponse_Response_ScanLock{ScanLock: r}}, err
	case *tikvpb.BatchCommandsRequest_Request_ResolveLock:
		r, err := s.KvResolveLock(ctx, c.ResolveLock)
		return &batchResponse{Cmd: &tikvpb.BatchCommandsResponse_Response_ResolveLock{ResolveLock: r}}, err
	case *tikvpb.BatchCommandsRequest_Request_GC:
		r, err := s.KvGC(ctx, c.GC)
		return &batchResponse{Cmd: &tikvpb.BatchCommandsResponse_Response_GC{GC: r}}, err
	case *tikvpb.BatchCommandsRequest_Request_DeleteRange:
		r, err := s.KvDeleteRange(ctx, c.DeleteRange)
		return &batchResponse{Cmd: &tikvpb.BatchCommandsResponse_Response_DeleteRange{DeleteRange: r}}, err
	case *tikvpb.BatchCommandsRequest_Request_RawGet:
		r, err := s.RawGet(ctx, c.RawGet)
		return &batchResponse{Cmd: &tikvpb.BatchCommandsResponse_Response_RawGet{RawGet: r}}, err
	case *tikvpb.BatchCommandsRequest_Request_RawBatchGet:
		r, err := s.RawBatchGet(ctx, c.RawBatchGet)
		return &batchResponse{Cmd: &tikvpb.BatchCommandsResponse_Response_RawBatchGet{RawBatchGet: r}}, err
	case *tikvpb.BatchCommandsRequest_Request_RawPut:
		r, err := s.RawPut(ctx, c.RawPut)
		return &batchResponse{Cmd: &tikvpb.BatchCommandsResponse_Response_RawPut{RawPut: r}}, err
	case *tikvpb.BatchCommandsRequest_Request_RawBatchPut:
		r, err := s.RawBatchPut(ctx, c.RawBatchPut)
		return &batchResponse{Cmd: &tikvpb.BatchCommandsResponse_Response_RawBatchPut{RawBatchPut: r}}, err
	case *tikvpb.BatchCommandsRequest_Request_RawDelete:
		r, err := s.RawDelete(ctx, c.RawDelete)
		return &batchResponse{Cmd: &tikvpb.BatchCommandsResponse_Response_RawDelete{RawDelete: r}}, err
	case *tikvpb.BatchCommandsRequest_Request_RawBatchDelete:
		r, err := s.RawBatchDelete(ctx, c.RawBatchDelete)
		return &batchResponse{Cmd: &tikvpb.BatchCommandsResponse_Response_RawBatchDelete{RawBatchDelete: r}}, err
	case *tikvpb.BatchCommandsRequest_Request_RawScan:
		r, err := s.RawScan(ctx, c.RawScan)
		return &batchResponse{Cmd: &tikvpb.BatchCommandsResponse_Response_RawScan{RawScan: r}}, err
	case *tikvpb.BatchCommandsRequest_Request_RawDeleteRange:
		r, err := s.RawDeleteRange(ctx, c.RawDeleteRange)
		return &batchResponse{Cmd: &tikvpb.BatchCommandsResponse_Response_RawDeleteRange{RawDeleteRange: r}}, err
	case *tikvpb.BatchCommandsRequest_Request_RawBatchScan:
		r, err := s.RawBatchScan(ctx, c.RawBatchScan)
		return &batchResponse{Cmd: &tikvpb.BatchCommandsResponse_Response_RawBatchScan{RawBatchScan: r}}, err
	case *tikvpb.BatchCommandsRequest_Request_Coprocessor:
		r, err := s.Coprocessor(ctx, c.Coprocessor)
		return &batchResponse{Cmd: &tikvpb.BatchCommandsResponse_Response_Coprocessor{Coprocessor: r}}, err
	case *tikvpb.BatchCommandsRequest_Request_PessimisticLock:
		r, err := s.KvPessimisticLock(ctx, c.PessimisticLock)
		return &batchResponse{Cmd: &tikvpb.BatchCommandsResponse_Response_PessimisticLock{PessimisticLock: r}}, err
	case *tikvpb.BatchCommandsRequest_Request_PessimisticRollback:
		r, err := s.KVPessimisticRollback(ctx, c.PessimisticRollback)
		return &batchResponse{Cmd: &tikvpb.BatchCommandsResponse_Response_PessimisticRollback{PessimisticRollback: r}}, err
	case *tikvpb.BatchCommandsRequest_Request_CheckTxnStatus:
		r, err := s.KvCheckTxnStatus(ctx, c.CheckTxnStatus)
		return &batchResponse{Cmd: &tikvpb.BatchCommandsResponse_Response_CheckTxnStatus{CheckTxnStatus: r}}, err
	case *tikvpb.BatchCommandsRequest_Request_TxnHeartBeat:
		r, err := s.KvTxnHeartBeat(ctx, c.TxnHeartBeat)
		return &batchResponse{Cmd: &tikvpb.BatchCommandsResponse_Response_TxnHeartBeat{TxnHeartBeat: r}}, err
	case *tikvpb.BatchCommandsRequest_Request_CheckSecondaryLocks:
		r, err := s.KvCheckSecondaryLocks(ctx, c.CheckSecondaryLocks)
		return &batchResponse{Cmd: &tikvpb.BatchCommandsResponse_Response_CheckSecondaryLocks{CheckSecondaryLocks: r}}, err
	case *tikvpb.BatchCommandsRequest_Request_RawCoprocessor:
		r, err := s.RawCoprocessor(ctx, c.RawCoprocessor)
		return &batchResponse{Cmd: &tikvpb.BatchCommandsResponse_Response_RawCoprocessor{RawCoprocessor: r}}, err
	case *tikvpb.BatchCommandsRequest_Request_FlashbackToVersion:
		r, err := s.KvFlashbackToVersion(ctx, c.FlashbackToVersion)
		return &batchResponse{Cmd: &tikvpb.BatchCommandsResponse_Response_FlashbackToVersion{FlashbackToVersion: r}}, err
	case *tikvpb.BatchCommandsRequest_Request_PrepareFlashbackToVersion:
		r, err := s.KvPrepareFlashbackToVersion(ctx, c.PrepareFlashbackToVersion)
		return &batchResponse{Cmd: &tikvpb.BatchCommandsResponse_Response_PrepareFlashbackToVersion{PrepareFlashbackToVersion: r}}, err
	case *tikvpb.BatchCommandsRequest_Request_Empty:
		empty := &tikvpb.BatchCommandsEmptyResponse{TestId: c.Empty.GetTestId()}
		return &batchResponse{Cmd: &tikvpb.BatchCommandsResponse_Response_Empty{Empty: empty}}, nil
	default:
		return nil, status.Error(codes.Unimplemented, "a command which this server does not know")
	}
}
