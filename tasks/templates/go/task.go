// How long requests took, by path, from the lines of a log.
//
// params: {"lines": ["2026-01-31T12:00:00Z /home 200 12ms", …]}
// result: {"/home": {"requests": 2, "errors": 0, "median_ms": 12, "slowest_ms": 30, "per_second": 0.5}}
package main

import (
	"math"
	"sort"
	"strconv"
	"strings"
	"time"
)

type Params struct {
	Lines []string `json:"lines"`
}

type Path struct {
	Requests  int     `json:"requests"`
	Errors    int     `json:"errors"`
	MedianMs  float64 `json:"median_ms"`
	SlowestMs float64 `json:"slowest_ms"`
	PerSecond float64 `json:"per_second"`

	first, last time.Time
	took        []float64
}

func task(params Params) (map[string]*Path, error) {
	paths := map[string]*Path{}
	for i, line := range params.Lines {
		fields := strings.Fields(line)
		if len(fields) != 4 {
			return nil, Permanent("lines[%d]: 4 fields are wanted: time, path, status, duration", i)
		}
		at, wrongTime := time.Parse(time.RFC3339, fields[0])
		status, wrongStatus := strconv.Atoi(fields[2])
		took, wrongDuration := time.ParseDuration(fields[3])
		for _, err := range []error{wrongTime, wrongStatus, wrongDuration} {
			if err != nil {
				return nil, Permanent("lines[%d]: %w", i, err)
			}
		}
		path := paths[fields[1]]
		if path == nil {
			path = &Path{first: at, last: at}
			paths[fields[1]] = path
		}
		path.add(at, status, took)
	}
	for _, path := range paths {
		path.finish()
	}
	return paths, nil
}

func (p *Path) add(at time.Time, status int, took time.Duration) {
	p.Requests++
	if status >= 500 {
		p.Errors++
	}
	if at.Before(p.first) {
		p.first = at
	}
	if at.After(p.last) {
		p.last = at
	}
	p.took = append(p.took, float64(took.Microseconds())/1000)
}

func (p *Path) finish() {
	sort.Float64s(p.took)
	p.MedianMs = p.took[(len(p.took)-1)/2]
	p.SlowestMs = p.took[len(p.took)-1]
	p.PerSecond = float64(p.Requests) / math.Max(1, p.last.Sub(p.first).Seconds())
}
