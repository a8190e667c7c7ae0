package main

import "context"

func (p *peer) rawPut(ctx context.Context, req *request) (fields, error) {
	return nil, p.raw.Put(ctx, req.Key, req.Value)
}

func (p *peer) rawGet(ctx context.Context, req *request) (fields, error) {
	value, err := p.raw.Get(ctx, req.Key)
	return fields{"value": optional(value, value != nil)}, err
}

func (p *peer) rawDelete(ctx context.Context, req *request) (fields, error) {
	return nil, p.raw.Delete(ctx, req.Key)
}

func (p *peer) rawBatchPut(ctx context.Context, req *request) (fields, error) {
	keys := make([][]byte, len(req.Pairs))
	values := make([][]byte, len(req.Pairs))
	for i, pair := range req.Pairs {
		keys[i], values[i] = pair[0], pair[1]
	}
	return nil, p.raw.BatchPut(ctx, keys, values)
}

func (p *peer) rawBatchGet(ctx context.Context, req *request) (fields, error) {
	keys := req.keys()
	values, err := p.raw.BatchGet(ctx, keys)
	found := pairs{}
	for i, value := range values {
		if value != nil {
			found.add(keys[i], value)
		}
	}
	return fields{"pairs": found}, err
}

func (p *peer) rawBatchDelete(ctx context.Context, req *request) (fields, error) {
	return nil, p.raw.BatchDelete(ctx, req.keys())
}

func (p *peer) rawScan(ctx context.Context, req *request) (fields, error) {
	keys, values, err := p.raw.Scan(ctx, req.Start, req.End, req.Limit)
	return zipped(keys, values), err
}

// rawReverseScan: client-go takes the upper bound first.
func (p *peer) rawReverseScan(ctx context.Context, req *request) (fields, error) {
	keys, values, err := p.raw.ReverseScan(ctx, req.End, req.Start, req.Limit)
	return zipped(keys, values), err
}

func zipped(keys, values [][]byte) fields {
	found := pairs{}
	for i := range keys {
		found.add(keys[i], values[i])
	}
	return fields{"pairs": found}
}

func (p *peer) rawDeleteRange(ctx context.Context, req *request) (fields, error) {
	return nil, p.raw.DeleteRange(ctx, req.Start, req.End)
}

func (p *peer) rawCas(ctx context.Context, req *request) (fields, error) {
	var expected []byte
	if req.Expected != nil {
		expected = append([]byte{}, *req.Expected...)
	}
	previous, swapped, err := p.atomic.CompareAndSwap(ctx, req.Key, expected, req.Value)
	return fields{"swapped": swapped, "previous": optional(previous, previous != nil)}, err
}
