//go:build !component

package main

import (
	"fmt"
	"io"
	"os"
)

func main() {
	text, err := io.ReadAll(os.Stdin)
	if len(text) == 0 {
		text = []byte("null")
	}
	var result []byte
	if err == nil {
		result, err = call(task, text)
	}
	if err == nil {
		_, err = os.Stdout.Write(result)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		if isPermanent(err) {
			os.Exit(65)
		}
		os.Exit(75)
	}
}

// Progress says how far the task is, from 0 to 1.
func Progress(fraction float32, note string) { fmt.Fprintf(os.Stderr, "::progress %g %s\n", fraction, note) }

// Partial gives a first part of the result, JSON.
func Partial(value string) { fmt.Fprintf(os.Stderr, "::partial %s\n", value) }

// Log writes a line into the task's log.
func Log(text string) { fmt.Fprintln(os.Stderr, text) }

// Add adds a task, a document in JSON, when this one is done.
func Add(document string) { fmt.Fprintf(os.Stderr, "::add %s\n", document) }
