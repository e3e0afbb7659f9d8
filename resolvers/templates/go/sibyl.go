package main

// What the node calls and what it is answered, for Go: layouts and export names of sibyl:resolver@0.1.0. You need not
// change this file. The node makes a component of the module; plain export names are enough for it, and what Go wants
// of WASI it gets as constants: no clock, no randomness, no files, and standard error goes to the node's log.

import (
	"fmt"
	"unsafe"
)

// Sibling is one of the concurrent versions of a key; with a nil Value the client deleted it.
type Sibling struct {
	Value      []byte
	ModifiedAt uint64 // milliseconds since 1970, equal on every replica
	Attributes map[string]string
}

// Context is where the conflict is, and the bucket's `resolver.config` as JSON text, or nil.
type Context struct {
	Bucket     string
	Key        []byte
	Config     []byte
	Attributes map[string]string
}

// Answer is what shall become of the siblings; or why there is no resolution, and then they stay as they are.
type Answer struct{ words [5]uint32 }

func Merged(value []byte) Answer      { return Answer{[5]uint32{0, 0, address(value), length(value)}} }
func Pick(index int) Answer           { return Answer{[5]uint32{0, 1, uint32(index)}} }
func Delete() Answer                  { return Answer{[5]uint32{0, 3}} }
func BadConfig(message string) Answer { return failure(1, message) }
func Declined(message string) Answer  { return failure(2, message) }
func Failed(message string) Answer    { return failure(3, message) }

func Keep(indexes []uint32) Answer {
	keep(indexes)
	return Answer{[5]uint32{0, 2, uint32(uintptr(unsafe.Pointer(unsafe.SliceData(indexes)))), uint32(len(indexes))}}
}

func Malformed(index int, message string) Answer {
	text := []byte(message)
	return Answer{[5]uint32{1, 0, uint32(index), address(text), length(text)}}
}

func failure(which uint32, message string) Answer {
	text := []byte(message)
	return Answer{[5]uint32{1, which, address(text), length(text)}}
}

type Description struct {
	Name, Version, Summary string
	MediaTypes             []string
	ConfigSchema           string // JSON Schema, or empty
}

type Level uint32

const (
	Debug Level = iota
	Info
	Warn
	Error
)

//go:wasmimport sibyl:resolver/logging@0.1.0 log
func hostLog(level uint32, at unsafe.Pointer, length uint32)

func Log(level Level, message string) {
	hostLog(uint32(level), unsafe.Pointer(unsafe.StringData(message)), uint32(len(message)))
}

// Nothing that the node still reads may be collected; the instance ends with the call.
var kept []any

func keep(value any) { kept = append(kept, value) }

func address(bytes []byte) uint32 {
	keep(bytes)
	return uint32(uintptr(unsafe.Pointer(unsafe.SliceData(bytes))))
}

func length(bytes []byte) uint32 { return uint32(len(bytes)) }

func lowered[T any](value T) unsafe.Pointer {
	place := new(T)
	*place = value
	keep(place)
	return unsafe.Pointer(place)
}

//go:wasmexport cabi_realloc
func reallocate(old unsafe.Pointer, oldSize, alignment, size uint32) unsafe.Pointer {
	if size == 0 {
		return unsafe.Pointer(uintptr(alignment))
	}
	// Words, so that every alignment of the contract holds.
	words := make([]uint64, (size+7)/8)
	keep(words)
	place := unsafe.Pointer(unsafe.SliceData(words))
	if old != nil {
		copy(unsafe.Slice((*byte)(place), size), unsafe.Slice((*byte)(old), oldSize))
	}
	return place
}

type rawList struct{ at, length uint32 }

func pointer(at uint32) unsafe.Pointer { return unsafe.Add(nil, at) }

func (list rawList) bytes() []byte {
	if list.length == 0 {
		return []byte{}
	}
	return unsafe.Slice((*byte)(pointer(list.at)), list.length)
}

func attributes(list rawList) map[string]string {
	all := map[string]string{}
	if list.length > 0 {
		for _, pair := range unsafe.Slice((*[2]rawList)(pointer(list.at)), list.length) {
			all[string(pair[0].bytes())] = string(pair[1].bytes())
		}
	}
	return all
}

func siblings(list rawList) []Sibling {
	type raw struct {
		hasValue   uint8
		value      rawList
		_          uint32
		modifiedAt uint64
		attributes rawList
	}
	var all []Sibling
	if list.length > 0 {
		for _, one := range unsafe.Slice((*raw)(pointer(list.at)), list.length) {
			sibling := Sibling{ModifiedAt: one.modifiedAt, Attributes: attributes(one.attributes)}
			if one.hasValue != 0 {
				sibling.Value = one.value.bytes()
			}
			all = append(all, sibling)
		}
	}
	return all
}

func context(bucket, key rawList, hasConfig uint32, config, attached rawList) Context {
	context := Context{Bucket: string(bucket.bytes()), Key: key.bytes(), Attributes: attributes(attached)}
	if hasConfig != 0 {
		context.Config = config.bytes()
	}
	return context
}

//go:wasmexport resolve
func exportedResolve(
	bucket, bucketLength, key, keyLength, hasConfig, config, configLength, attributes, attributeCount, all, count uint32,
) (answer unsafe.Pointer) {
	defer func() {
		if reason := recover(); reason != nil {
			answer = lowered(Failed(fmt.Sprint("panic: ", reason)).words)
		}
	}()
	where := context(
		rawList{bucket, bucketLength}, rawList{key, keyLength}, hasConfig, rawList{config, configLength},
		rawList{attributes, attributeCount})
	return lowered(Resolve(where, siblings(rawList{all, count})).words)
}

//go:wasmexport check_value
func exportedCheckValue(
	bucket, bucketLength, key, keyLength, hasConfig, config, configLength, attributes, attributeCount, value, size uint32,
) unsafe.Pointer {
	where := context(
		rawList{bucket, bucketLength}, rawList{key, keyLength}, hasConfig, rawList{config, configLength},
		rawList{attributes, attributeCount})
	if err := CheckValue(where, rawList{value, size}.bytes()); err != nil {
		text := []byte(err.Error())
		return lowered([3]uint32{1, address(text), length(text)})
	}
	return lowered([3]uint32{})
}

//go:wasmexport describe
func exportedDescribe() unsafe.Pointer {
	said := Describe()
	list := func(text string) rawList { bytes := []byte(text); return rawList{address(bytes), length(bytes)} }
	types := make([]rawList, len(said.MediaTypes))
	for i, mediaType := range said.MediaTypes {
		types[i] = list(mediaType)
	}
	keep(types)
	name, version, summary, schema := list(said.Name), list(said.Version), list(said.Summary), list(said.ConfigSchema)
	var hasSchema uint32
	if said.ConfigSchema != "" {
		hasSchema = 1
	}
	return lowered([11]uint32{
		name.at, name.length, version.at, version.length, summary.at, summary.length,
		uint32(uintptr(unsafe.Pointer(unsafe.SliceData(types)))), uint32(len(types)),
		hasSchema, schema.at, schema.length,
	})
}

func main() {}
