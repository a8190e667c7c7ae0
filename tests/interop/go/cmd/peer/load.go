package main

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"
)

// rawLoad measures raw calls from many callers at once.
func (p *peer) rawLoad(_ context.Context, req *request) (fields, error) {
	keys := req.keys()
	if len(keys) == 0 || (req.Op != "get" && req.Op != "put") {
		return nil, fmt.Errorf("keys and an op are needed, not %d and %q", len(keys), req.Op)
	}
	deadline := time.Now().Add(time.Duration(req.MaxMs) * time.Millisecond)
	var mu sync.Mutex
	var took []time.Duration
	failed := make(map[string]int)
	var callers sync.WaitGroup
	for c := 0; c < req.Callers; c++ {
		callers.Add(1)
		go func(at int) {
			defer callers.Done()
			own, errs := p.rawCaller(req, keys, at, deadline)
			mu.Lock()
			defer mu.Unlock()
			took = append(took, own...)
			for _, err := range errs {
				failed[err.Error()]++
			}
		}(c * len(keys) / req.Callers)
	}
	callers.Wait()
	slices.Sort(took)
	percentile := func(percent int) int64 {
		if len(took) == 0 {
			return 0
		}
		return took[(len(took)-1)*percent/100].Microseconds()
	}
	return fields{"ops": len(took), "p50_us": percentile(50), "p99_us": percentile(99), "errors": failed}, nil
}

func (p *peer) rawCaller(req *request, keys [][]byte, at int, deadline time.Time) (took []time.Duration, errs []error) {
	ctx := context.Background()
	for began := time.Now(); began.Before(deadline); began = time.Now() {
		key := keys[at%len(keys)]
		at++
		var err error
		if req.Op == "get" {
			_, err = p.raw.Get(ctx, key)
		} else {
			err = p.raw.Put(ctx, key, req.Value)
		}
		if err != nil {
			errs = append(errs, err)
			continue
		}
		took = append(took, time.Since(began))
	}
	return took, errs
}
