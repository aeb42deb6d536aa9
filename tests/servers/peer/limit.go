package main

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"connectrpc.com/connect"
)

// What a tenant may push by default: uncompressed profiles and their labels.
const (
	bytesPerSecond = 4 << 20
	burstBytes     = 2 << 20
)

// limiter holds a token bucket a tenant.
type limiter struct {
	mu      sync.Mutex
	buckets map[string]*bucket
}

type bucket struct {
	tokens float64
	at     time.Time
}

// charge takes size tokens if all of them are there, as of now.
func (l *limiter) charge(tenant string, now time.Time, size int) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	b := l.buckets[tenant]
	if b == nil {
		b = &bucket{tokens: burstBytes, at: now}
		l.buckets[tenant] = b
	}
	if now.After(b.at) {
		b.tokens = min(burstBytes, b.tokens+now.Sub(b.at).Seconds()*bytesPerSecond)
		b.at = now
	}
	if float64(size) > b.tokens {
		message := fmt.Sprintf("push rate limit (%s) exceeded while adding %s", readable(bytesPerSecond), readable(size))
		return connect.NewError(connect.CodeResourceExhausted, errors.New(message))
	}
	b.tokens -= float64(size)
	return nil
}

func readable(size int) string {
	switch {
	case size >= 1<<20:
		return fmt.Sprintf("%.1f MiB", float64(size)/(1<<20))
	case size >= 1<<10:
		return fmt.Sprintf("%.1f KiB", float64(size)/(1<<10))
	}
	return fmt.Sprintf("%d B", size)
}
