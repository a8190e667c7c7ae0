package main

import (
	"math"
	"math/bits"
	"sync/atomic"
	"time"
)

// Each power of two is divided into so many buckets of equal width, as by the peers in Rust.
const (
	perOctaveBits = 6
	perOctave     = 1 << perOctaveBits
)

// histogram counts durations by their length, from all callers.
type histogram struct {
	counts [perOctave * (65 - perOctaveBits)]atomic.Uint64
}

func (h *histogram) record(took time.Duration) {
	h.counts[bucket(uint64(took.Nanoseconds()))].Add(1)
}

func (h *histogram) count() (count uint64) {
	for i := range h.counts {
		count += h.counts[i].Load()
	}
	return count
}

// quantileUs is the shortest duration that so many of all do not exceed.
func (h *histogram) quantileUs(quantile float64) float64 {
	wanted := max(1, uint64(math.Ceil(float64(h.count())*quantile)))
	var seen uint64
	for i := range h.counts {
		if seen += h.counts[i].Load(); seen >= wanted {
			return float64(middle(i)) / 1e3
		}
	}
	return 0
}

func bucket(nanoseconds uint64) int {
	lost := max(0, bits.Len64(nanoseconds)-perOctaveBits-1)
	return lost*perOctave + int(nanoseconds>>lost)
}

func middle(bucket int) uint64 {
	lost := max(0, bucket/perOctave-1)
	return uint64(bucket-lost*perOctave)<<lost + (1<<lost-1)/2
}
