// A task in Go, from one source as a command and as a component: the two files beside this one are chosen by the tag
// `component`. Params are read as JSON into what `task` takes, what it gives back is written as JSON.

package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
)

// permanent is an error for which trying again is of no use.
type permanent struct{ error }

// Permanent makes an error one for which trying again is of no use.
func Permanent(format string, values ...any) error { return permanent{fmt.Errorf(format, values...)} }

// call gives the result, or what went wrong. Params with unknown fields or of a wrong type are a permanent failure that
// names the field.
func call[Params, Result any](task func(Params) (Result, error), text []byte) ([]byte, error) {
	var params Params
	reader := json.NewDecoder(bytes.NewReader(text))
	reader.DisallowUnknownFields()
	if err := reader.Decode(&params); err != nil {
		return nil, permanent{fmt.Errorf("params: %w", err)}
	}
	result, err := task(params)
	if err != nil {
		return nil, err
	}
	return json.Marshal(result)
}

func isPermanent(err error) bool {
	var is permanent
	return errors.As(err, &is)
}
