//go:build component

// The canonical ABI by hand. A pointer in Go's memory has 64 bits, one of the ABI has 32.

package main

import "unsafe"

//go:wasmimport taskmaster:task/host@1.0.0 progress
func hostProgress(fraction float32, note unsafe.Pointer, length uint32)

//go:wasmimport taskmaster:task/host@1.0.0 partial
func hostPartial(value unsafe.Pointer, length uint32)

//go:wasmimport taskmaster:task/host@1.0.0 log
func hostLog(text unsafe.Pointer, length uint32)

//go:wasmimport taskmaster:task/host@1.0.0 add
func hostAdd(document unsafe.Pointer, length uint32, answer unsafe.Pointer)

func give(text string, to func(unsafe.Pointer, uint32)) {
	bytes := append([]byte(text), 0)
	to(unsafe.Pointer(&bytes[0]), uint32(len(text)))
}

// Progress says how far the task is, from 0 to 1.
func Progress(fraction float32, note string) {
	give(note, func(at unsafe.Pointer, length uint32) { hostProgress(fraction, at, length) })
}

// Partial gives a first part of the result, JSON.
func Partial(value string) { give(value, func(at unsafe.Pointer, length uint32) { hostPartial(at, length) }) }

// Log writes a line into the task's log.
func Log(text string) { give(text, func(at unsafe.Pointer, length uint32) { hostLog(at, length) }) }

// Add adds a task, a document in JSON, when this one is done.
func Add(document string) {
	var answer [3]uint32
	give(document, func(at unsafe.Pointer, length uint32) { hostAdd(at, length, unsafe.Pointer(&answer)) })
}

var (
	kept   = map[unsafe.Pointer][]byte{} // what the caller was given must stay where it is
	answer [4]uint32                     // result<string, error>, where error is a variant of two strings
	told   []byte
)

//go:wasmexport cabi_realloc
func realloc(old unsafe.Pointer, was, align, size uint32) unsafe.Pointer {
	if size == 0 {
		return old
	}
	bytes := make([]byte, size+align)
	at := unsafe.Pointer(&bytes[0])
	if over := uint32(uintptr(at)) % align; over != 0 {
		at = unsafe.Pointer(&bytes[align-over])
	}
	if old != nil {
		copy(unsafe.Slice((*byte)(at), size), unsafe.Slice((*byte)(old), was))
		delete(kept, old)
	}
	kept[at] = bytes
	return at
}

//go:wasmexport run
func run(params unsafe.Pointer, length uint32) unsafe.Pointer {
	result, err := call(task, append([]byte(nil), unsafe.Slice((*byte)(params), length)...))
	place := answer[1:]
	answer[0] = 0
	if err != nil {
		answer[0], answer[1], result = 1, 0, []byte(err.Error())
		if isPermanent(err) {
			answer[1] = 1
		}
		place = answer[2:]
	}
	told = append(result, 0)
	place[0], place[1] = uint32(uintptr(unsafe.Pointer(&told[0]))), uint32(len(result))
	return unsafe.Pointer(&answer)
}

func main() {}
