package main

import (
	"math"
	"sort"
	"sync"
	"sync/atomic"
	"time"
)

// safePoints is PD's knowledge of garbage collection: the GC and transaction safe points, which never go back, and what
// services hold them back (service safe points, later called GC barriers).
type safePoints struct {
	mu       sync.Mutex
	gc       uint64
	txn      uint64
	services map[string]serviceSafePoint
	external atomic.Uint64
}

type serviceSafePoint struct {
	ts      uint64
	expires time.Time // zero: never
}

func newSafePoints() *safePoints {
	return &safePoints{services: make(map[string]serviceSafePoint)}
}

func (s *safePoints) get() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.gc
}

// advance moves the GC safe point forward and returns the old and the new one.
func (s *safePoints) advance(to uint64) (old, now uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	old = s.gc
	s.gc = max(s.gc, to)
	return old, s.gc
}

// advanceTxn moves the transaction safe point forward, no further than the lowest barrier.
func (s *safePoints) advanceTxn(to uint64) (old, now uint64, blocker string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	old = s.txn
	if name, held, ok := s.lowest(); ok && held.ts < to {
		to, blocker = held.ts, name
	}
	s.txn = max(s.txn, to)
	return old, s.txn, blocker
}

// setService sets a service's safe point (or removes it with a TTL of zero or less) and returns the lowest of all.
func (s *safePoints) setService(name string, ttlSeconds int64, ts uint64) (lowest string, ttl int64, minimum uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if ttlSeconds <= 0 {
		delete(s.services, name)
	} else if held, ok := s.lowestTS(); !ok || ts >= held {
		s.services[name] = newServiceSafePoint(ts, ttlSeconds)
	}
	if name, held, ok := s.lowest(); ok {
		return name, held.ttl(), held.ts
	}
	return "gc_worker", math.MaxInt64, s.gc
}

func newServiceSafePoint(ts uint64, ttlSeconds int64) serviceSafePoint {
	held := serviceSafePoint{ts: ts}
	if ttlSeconds < int64(100*365*24*time.Hour/time.Second) {
		held.expires = time.Now().Add(time.Duration(ttlSeconds) * time.Second)
	}
	return held
}

func (h serviceSafePoint) ttl() int64 {
	if h.expires.IsZero() {
		return math.MaxInt64
	}
	return int64(time.Until(h.expires) / time.Second)
}

func (s *safePoints) lowestTS() (uint64, bool) {
	_, held, ok := s.lowest()
	return held.ts, ok
}

// lowest forgets what has expired and finds the lowest of the rest. The lock is held.
func (s *safePoints) lowest() (name string, lowest serviceSafePoint, ok bool) {
	for _, n := range s.names() {
		held := s.services[n]
		if !held.expires.IsZero() && time.Now().After(held.expires) {
			delete(s.services, n)
			continue
		}
		if !ok || held.ts < lowest.ts {
			name, lowest, ok = n, held, true
		}
	}
	return name, lowest, ok
}

func (s *safePoints) names() []string {
	names := make([]string, 0, len(s.services))
	for n := range s.services {
		names = append(names, n)
	}
	sort.Strings(names)
	return names
}

// setBarrier sets a GC barrier; one behind the transaction safe point is refused.
func (s *safePoints) setBarrier(name string, ts uint64, ttlSeconds int64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if ts < s.txn {
		return false
	}
	s.services[name] = newServiceSafePoint(ts, ttlSeconds)
	return true
}

// removeBarrier removes a GC barrier and returns what it was.
func (s *safePoints) removeBarrier(name string) (serviceSafePoint, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	held, ok := s.services[name]
	delete(s.services, name)
	return held, ok
}

// state is everything at once.
func (s *safePoints) state() (txn, gc uint64, barriers []namedBarrier) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lowest()
	for _, n := range s.names() {
		barriers = append(barriers, namedBarrier{n, s.services[n]})
	}
	return s.txn, s.gc, barriers
}

type namedBarrier struct {
	name string
	held serviceSafePoint
}
