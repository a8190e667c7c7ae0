// client-go as a peer of the benchmark: bench-peer-client-go PD WORKLOAD CALLERS SECONDS WARM_UP.
//
// It does what ../tikv does, in the words of the other client, and prints the same line.
package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pingcap/log"
	"go.uber.org/zap/zapcore"
	"google.golang.org/grpc/grpclog"
)

func main() {
	if len(os.Args) != 6 {
		fail(fmt.Errorf("usage: bench-peer-client-go PD WORKLOAD CALLERS SECONDS WARM_UP"))
	}
	quietLogs()
	callers, err := strconv.Atoi(os.Args[3])
	check(err)
	peer, err := connect(os.Args[1], os.Args[2])
	check(err)
	line := measure(peer, callers, seconds(os.Args[4]), seconds(os.Args[5]))
	check(json.NewEncoder(os.Stdout).Encode(line))
	// Not by returning: callers that are still at it must not hold the process up.
	os.Exit(0)
}

// figures is the line that the driver reads.
type figures struct {
	Operations    uint64  `json:"operations"`
	AllOperations uint64  `json:"all_operations"`
	Seconds       float64 `json:"seconds"`
	CPUSeconds    float64 `json:"cpu_seconds"`
	P50           float64 `json:"p50_us"`
	P99           float64 `json:"p99_us"`
	P999          float64 `json:"p999_us"`
	PeakBytes     uint64  `json:"peak_bytes"`
	Errors        uint64  `json:"errors"`
	FirstError    *string `json:"first_error"`
}

// measure lets callers do the peer's operation again and again, and tells of what ended after the warm-up.
func measure(peer *peer, callers int, duration, warmUp time.Duration) figures {
	var took histogram
	var operations, errors atomic.Uint64
	var firstError atomic.Pointer[string]
	measuredFrom := time.Now().Add(warmUp)
	ends := measuredFrom.Add(duration)
	var running sync.WaitGroup
	for number := range callers {
		running.Add(1)
		go func() {
			defer running.Done()
			keys := newKeys(number)
			for began := time.Now(); began.Before(ends); {
				err := peer.operate(keys)
				ended := time.Now()
				operations.Add(1)
				if err != nil {
					errors.Add(1)
					text := err.Error()
					firstError.CompareAndSwap(nil, &text)
				} else if !ended.Before(measuredFrom) && ended.Before(ends) {
					took.record(ended.Sub(began))
				}
				began = ended
			}
		}()
	}
	time.Sleep(warmUp)
	from, cpuFrom := time.Now(), cpuTime()
	time.Sleep(duration)
	elapsed, cpu := time.Since(from), cpuTime()-cpuFrom
	return figures{
		Operations: took.count(), AllOperations: operations.Load(),
		Seconds: elapsed.Seconds(), CPUSeconds: cpu.Seconds(),
		P50: took.quantileUs(0.5), P99: took.quantileUs(0.99), P999: took.quantileUs(0.999),
		PeakBytes: peakBytes(), Errors: errors.Load(), FirstError: firstError.Load(),
	}
}

func seconds(text string) time.Duration {
	number, err := strconv.ParseFloat(text, 64)
	check(err)
	return time.Duration(number * float64(time.Second))
}

func quietLogs() {
	sink := zapcore.Lock(os.Stderr)
	logger, props, err := log.InitLoggerWithWriteSyncer(&log.Config{Level: "error"}, sink, sink)
	if err == nil {
		log.ReplaceGlobals(logger, props)
	}
	grpclog.SetLoggerV2(grpclog.NewLoggerV2(io.Discard, io.Discard, io.Discard))
}

func check(err error) {
	if err != nil {
		fail(err)
	}
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, "bench-peer-client-go:", err)
	os.Exit(1)
}
