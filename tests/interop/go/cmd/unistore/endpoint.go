package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"runtime/debug"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"
)

// endpoint is one gRPC server on a fixed port of the loopback interface, which can be stopped as if it had crashed (its
// connections break) and started again.
type endpoint struct {
	name     string
	register func(*grpc.Server)
	options  []grpc.ServerOption

	mu       sync.Mutex
	addr     string
	listener net.Listener
	server   *grpc.Server // nil while stopped
}

// listen takes the port. A port asked for by number may still be held for a moment by a process that is being killed.
func listen(name, addr string) (*endpoint, error) {
	var listener net.Listener
	var err error
	for attempt := 0; attempt < 50; attempt++ {
		if listener, err = net.Listen("tcp", addr); err == nil {
			return &endpoint{name: name, addr: listener.Addr().String(), listener: listener}, nil
		}
		time.Sleep(100 * time.Millisecond)
	}
	return nil, fmt.Errorf("%s: %w", name, err)
}

func (e *endpoint) start() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.server != nil {
		return fmt.Errorf("%s runs already", e.name)
	}
	if e.listener == nil {
		listener, err := net.Listen("tcp", e.addr)
		if err != nil {
			return err
		}
		e.listener = listener
	}
	e.server = grpc.NewServer(append(commonOptions(), e.options...)...)
	e.register(e.server)
	// client-go asks it whether a store which failed is alive again.
	healthpb.RegisterHealthServer(e.server, health.NewServer())
	go func(server *grpc.Server, listener net.Listener) {
		if err := server.Serve(listener); err != nil {
			fmt.Fprintf(os.Stderr, "%s: %v\n", e.name, err)
		}
	}(e.server, e.listener)
	return nil
}

func (e *endpoint) stop() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.server == nil {
		return fmt.Errorf("%s is stopped already", e.name)
	}
	e.server.Stop()
	e.server, e.listener = nil, nil
	return nil
}

func commonOptions() []grpc.ServerOption {
	return []grpc.ServerOption{
		grpc.MaxRecvMsgSize(64 << 20),
		grpc.MaxSendMsgSize(1 << 30),
		grpc.MaxConcurrentStreams(10_000),
		grpc.InitialWindowSize(1 << 20),
		grpc.InitialConnWindowSize(4 << 20),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: time.Second, PermitWithoutStream: true}),
		grpc.ChainUnaryInterceptor(unimplementedOnPanicUnary, refuseOtherClusters),
		grpc.ChainStreamInterceptor(unimplementedOnPanicStream),
	}
}

// unistore panics over what it never learnt; a client sees Unimplemented.
func unimplementedOnPanicUnary(ctx context.Context, req any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (resp any, err error) {
	defer func() { recovered(info.FullMethod, recover(), &err) }()
	return next(ctx, req)
}

func unimplementedOnPanicStream(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, next grpc.StreamHandler) (err error) {
	defer func() { recovered(info.FullMethod, recover(), &err) }()
	return next(srv, stream)
}

func recovered(method string, cause any, err *error) {
	if cause == nil {
		return
	}
	fmt.Fprintf(os.Stderr, "%s: panic: %v\n%s", method, cause, debug.Stack())
	*err = status.Errorf(codes.Unimplemented, "%s: unistore cannot: %v", method, cause)
}

func refuseOtherClusters(ctx context.Context, req any, _ *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
	if err := checkCluster(req); err != nil {
		return nil, err
	}
	return next(ctx, req)
}
