package main

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"connectrpc.com/connect"
	"github.com/google/pprof/profile"
	googlev1 "github.com/grafana/pyroscope/api/gen/proto/go/google/v1"
	pushv1 "github.com/grafana/pyroscope/api/gen/proto/go/push/v1"
	typesv1 "github.com/grafana/pyroscope/api/gen/proto/go/types/v1"
)

// What a Pyroscope server allows by default.
const (
	maxProfileBytes  = 4 << 20
	maxSamples       = 16000
	maxSampleLabels  = 100
	maxLabelNames    = 30
	maxLabelName     = 1024
	maxLabelValue    = 2048
	rejectNewerThan  = 10 * time.Minute
	rejectOlderThan  = time.Hour
	tenantHeader     = "X-Scope-OrgID"
	anonymousTenant  = "anonymous"
	unknownService   = "unknown_service"
	labelMetricName  = "__name__"
	labelServiceName = "service_name"
)

type pusher struct {
	store        *store
	limiter      *limiter
	multitenancy bool
}

type connectionKey struct{}

// numbered tells connections apart, so that a test can see whether one is kept.
func numbered() func(context.Context, net.Conn) context.Context {
	var count atomic.Int64
	return func(ctx context.Context, _ net.Conn) context.Context {
		return context.WithValue(ctx, connectionKey{}, fmt.Sprint(count.Add(1)))
	}
}

func invalid(format string, arguments ...any) error {
	return connect.NewError(connect.CodeInvalidArgument, fmt.Errorf(format, arguments...))
}

func (p *pusher) Push(
	ctx context.Context, request *connect.Request[pushv1.PushRequest],
) (*connect.Response[pushv1.PushResponse], error) {
	tenant := anonymousTenant
	if p.multitenancy {
		if tenant = request.Header().Get(tenantHeader); tenant == "" {
			return nil, connect.NewError(connect.CodeUnauthenticated, errors.New("no org id"))
		}
	}
	push := Push{Tenant: tenant, Header: map[string][]string(http.Header(request.Header()).Clone())}
	push.Connection, _ = ctx.Value(connectionKey{}).(string)
	push.Proto = request.Peer().Protocol
	// A server takes the series of a push at once and each for itself: what one is refused for, others are stored beside.
	now := time.Now()
	failures := []error{}
	for _, series := range request.Msg.Series {
		for _, sample := range series.Samples {
			one, err := p.accepted(tenant, now, series.Labels, sample)
			if err != nil {
				failures = append(failures, err)
				continue
			}
			push.Series = append(push.Series, *one)
		}
	}
	if len(push.Series) > 0 {
		p.store.add(push)
	}
	if len(failures) > 0 {
		return nil, failures[0]
	}
	if len(push.Series) == 0 {
		return nil, invalid("no profiles received")
	}
	return connect.NewResponse(&pushv1.PushResponse{}), nil
}

func checkedLabels(pairs []*typesv1.LabelPair) (map[string]string, error) {
	labels := map[string]string{}
	for _, pair := range pairs {
		if _, twice := labels[pair.Name]; twice {
			return nil, invalid("duplicate label name: %q", pair.Name)
		}
		if pair.Name == "" || len(pair.Name) > maxLabelName {
			return nil, invalid("label name too long or empty: %q", pair.Name)
		}
		if len(pair.Value) > maxLabelValue {
			return nil, invalid("label value too long: %q", pair.Value)
		}
		labels[pair.Name] = pair.Value
	}
	if labels[labelMetricName] == "" {
		return nil, invalid("invalid labels '%s' with error: invalid metric name", shown(pairs))
	}
	if labels[labelServiceName] == "" {
		labels[labelServiceName] = unknownService
	}
	return labels, nil
}

func shown(pairs []*typesv1.LabelPair) string {
	texts := []string{}
	for _, pair := range pairs {
		texts = append(texts, fmt.Sprintf("%s=%q", pair.Name, pair.Value))
	}
	return "{" + strings.Join(texts, ", ") + "}"
}

// A profile that is gzipped or not, told apart by its first bytes.
func uncompressed(raw []byte) ([]byte, bool, error) {
	if !bytes.HasPrefix(raw, []byte{0x1f, 0x8b}) {
		return raw, false, nil
	}
	reader, err := gzip.NewReader(bytes.NewReader(raw))
	if err != nil {
		return nil, true, err
	}
	data, err := io.ReadAll(io.LimitReader(reader, maxProfileBytes+1))
	return data, true, err
}

func (p *pusher) accepted(
	tenant string, now time.Time, pairs []*typesv1.LabelPair, sample *pushv1.RawSample,
) (*Series, error) {
	data, compressed, err := uncompressed(sample.RawProfile)
	if err != nil {
		return nil, connect.NewError(connect.CodeUnknown, err)
	}
	if len(data) > maxProfileBytes {
		return nil, invalid("the profile exceeds the size limit (max_profile_size_byte, limit: %d)", maxProfileBytes)
	}
	message := &googlev1.Profile{}
	if err := message.UnmarshalVT(data); err != nil {
		return nil, connect.NewError(connect.CodeUnknown, err)
	}
	size := message.SizeVT()
	for _, pair := range pairs {
		size += len(pair.Name) + len(pair.Value)
	}
	if err := p.limiter.charge(tenant, now, size); err != nil {
		return nil, err
	}
	labels, err := checkedLabels(pairs)
	if err != nil {
		return nil, err
	}
	if err := checkMessage(message, labels); err != nil {
		return nil, err
	}
	parsed, err := profile.ParseData(data)
	if err != nil {
		return nil, connect.NewError(connect.CodeUnknown, err)
	}
	if err := parsed.CheckValid(); err != nil {
		return nil, invalid("malformed profile: %v", err)
	}
	if parsed.TimeNanos <= 0 {
		parsed.TimeNanos = time.Now().UnixNano()
	}
	one := described(parsed, sample.ID, labels, compressed, data)
	one.tenant = tenant
	return one, nil
}

func checkMessage(message *googlev1.Profile, labels map[string]string) error {
	if len(message.StringTable) == 0 || message.StringTable[0] != "" {
		return invalid("string 0 should be empty string")
	}
	for _, text := range message.StringTable {
		if !utf8.ValidString(text) {
			return invalid("invalid utf8 string hex: %x", text)
		}
	}
	if len(message.SampleType) == 0 {
		return invalid("empty profile")
	}
	at := time.Unix(0, message.TimeNanos)
	if message.TimeNanos > 0 && (time.Until(at) > rejectNewerThan || time.Since(at) > rejectOlderThan) {
		return invalid("profile is outside of ingestion window (profile timestamp: %s)", at)
	}
	if len(message.Sample) > maxSamples {
		return invalid("exceeds the samples count limit (actual: %d, limit: %d)", len(message.Sample), maxSamples)
	}
	for _, function := range message.Function {
		if function.Id == 0 {
			return invalid("function id is 0")
		}
	}
	for _, location := range message.Location {
		if location.Id == 0 {
			return invalid("location id is 0")
		}
	}
	names := map[int64]bool{}
	for _, sample := range message.Sample {
		if len(sample.Value) != len(message.SampleType) {
			return invalid("sample value length mismatch")
		}
		if len(sample.Label) > maxSampleLabels {
			return invalid("exceeds the sample labels limit (limit: %d)", maxSampleLabels)
		}
		for _, label := range sample.Label {
			if label.Str != 0 {
				names[label.Key] = true
			}
		}
	}
	if total := len(labels) + len(names); total > maxLabelNames {
		return invalid("profile series has %d label names; limit %d", total, maxLabelNames)
	}
	return nil
}

func described(parsed *profile.Profile, id string, labels map[string]string, compressed bool, data []byte) *Series {
	series := &Series{
		Labels: labels, ID: id, Samples: len(parsed.Sample), Comments: parsed.Comments, Compressed: compressed,
		TimeNanos: parsed.TimeNanos, Duration: parsed.DurationNanos, raw: data,
		Totals: make([]int64, len(parsed.SampleType)),
	}
	for _, kind := range parsed.SampleType {
		series.SampleTypes = append(series.SampleTypes, kind.Type+"/"+kind.Unit)
	}
	for _, sample := range parsed.Sample {
		for column, value := range sample.Value {
			series.Totals[column] += value
		}
	}
	for _, function := range parsed.Function {
		series.Functions = append(series.Functions, function.Name)
	}
	return series
}
