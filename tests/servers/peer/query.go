package main

import (
	"context"
	"fmt"
	"regexp"
	"sort"
	"strings"

	"connectrpc.com/connect"
	"github.com/google/pprof/profile"
	googlev1 "github.com/grafana/pyroscope/api/gen/proto/go/google/v1"
	querierv1 "github.com/grafana/pyroscope/api/gen/proto/go/querier/v1"
	"github.com/grafana/pyroscope/api/gen/proto/go/querier/v1/querierv1connect"
	typesv1 "github.com/grafana/pyroscope/api/gen/proto/go/types/v1"
)

// querier answers the two queries that read profiles back; the rest is unimplemented.
type querier struct {
	querierv1connect.UnimplementedQuerierServiceHandler
	store *store
}

var matcher = regexp.MustCompile(`([a-zA-Z_][a-zA-Z0-9_]*)="([^"]*)"`)

func typeIDs(name string, parsed *profile.Profile) []string {
	var ids []string
	for _, kind := range parsed.SampleType {
		period := parsed.PeriodType
		if period == nil {
			period = &profile.ValueType{}
		}
		ids = append(ids, strings.Join([]string{name, kind.Type, kind.Unit, period.Type, period.Unit}, ":"))
	}
	return ids
}

// each calls back for every stored profile of the tenant; start and end are milliseconds.
func (q *querier) each(tenant string, start, end int64, visit func(Series, *profile.Profile) error) error {
	for _, push := range q.store.all() {
		for _, series := range push.Series {
			parsed, err := profile.ParseData(series.raw)
			if err != nil {
				return err
			}
			at := series.TimeNanos / 1e6
			if (tenant == "" || tenant == series.tenant) && at >= start && at <= end {
				if err := visit(series, parsed); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

func (q *querier) ProfileTypes(
	_ context.Context, request *connect.Request[querierv1.ProfileTypesRequest],
) (*connect.Response[querierv1.ProfileTypesResponse], error) {
	found := map[string]bool{}
	tenant := request.Header().Get(tenantHeader)
	err := q.each(tenant, request.Msg.Start, request.Msg.End, func(series Series, parsed *profile.Profile) error {
		for _, id := range typeIDs(series.Labels[labelMetricName], parsed) {
			found[id] = true
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	answer := &querierv1.ProfileTypesResponse{}
	for id := range found {
		part := strings.Split(id, ":")
		answer.ProfileTypes = append(answer.ProfileTypes, &typesv1.ProfileType{
			ID: id, Name: part[0], SampleType: part[1], SampleUnit: part[2], PeriodType: part[3], PeriodUnit: part[4],
		})
	}
	sort.Slice(answer.ProfileTypes, func(i, j int) bool { return answer.ProfileTypes[i].ID < answer.ProfileTypes[j].ID })
	return connect.NewResponse(answer), nil
}

func (q *querier) SelectMergeProfile(
	_ context.Context, request *connect.Request[querierv1.SelectMergeProfileRequest],
) (*connect.Response[googlev1.Profile], error) {
	message := request.Msg
	wanted := matcher.FindAllStringSubmatch(message.LabelSelector, -1)
	var matching []*profile.Profile
	tenant := request.Header().Get(tenantHeader)
	err := q.each(tenant, message.Start, message.End, func(series Series, parsed *profile.Profile) error {
		for _, pair := range wanted {
			if series.Labels[pair[1]] != pair[2] {
				return nil
			}
		}
		for column, id := range typeIDs(series.Labels[labelMetricName], parsed) {
			if id == message.ProfileTypeID {
				matching = append(matching, onlyColumn(parsed, column))
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	if len(matching) == 0 {
		return connect.NewResponse(&googlev1.Profile{}), nil
	}
	merged, err := profile.Merge(matching)
	if err != nil {
		return nil, fmt.Errorf("merge: %w", err)
	}
	var data strings.Builder
	if err := merged.WriteUncompressed(&data); err != nil {
		return nil, err
	}
	answer := &googlev1.Profile{}
	if err := answer.UnmarshalVT([]byte(data.String())); err != nil {
		return nil, err
	}
	return connect.NewResponse(answer), nil
}

func onlyColumn(parsed *profile.Profile, column int) *profile.Profile {
	parsed.SampleType = parsed.SampleType[column : column+1]
	parsed.DefaultSampleType = ""
	for _, sample := range parsed.Sample {
		sample.Value = sample.Value[column : column+1]
	}
	return parsed
}
