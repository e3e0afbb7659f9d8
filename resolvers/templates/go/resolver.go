// my-resolver: text as a set of lines. Its merge has every line that any sibling has, once, sorted.
//
// A lattice: a union does not care about grouping, order and repetition. Taking a line away holds only if nobody who
// writes at the same time still has it.
package main

import (
	"bytes"
	"errors"
	"slices"
)

var notText = errors.New("a zero byte: these are not lines of text")

func Resolve(_ Context, siblings []Sibling) Answer {
	var values [][]byte
	for _, sibling := range siblings {
		if sibling.Value != nil {
			values = append(values, sibling.Value)
		}
	}
	if len(values) == 0 {
		return Delete()
	}
	alike := func(value []byte) bool { return bytes.Equal(value, values[0]) }
	if len(values) == len(siblings) && !slices.ContainsFunc(values, func(value []byte) bool { return !alike(value) }) {
		// A merge of equal values is that value, byte for byte.
		return Pick(len(siblings) - 1)
	}
	var lines [][]byte
	for index, sibling := range siblings {
		if err := checkText(sibling.Value); err != nil {
			return Malformed(index, err.Error())
		}
		lines = append(lines, bytes.Split(sibling.Value, []byte("\n"))...)
	}
	slices.SortFunc(lines, bytes.Compare)
	union := []byte{}
	for _, line := range slices.CompactFunc(lines, bytes.Equal) {
		if len(line) > 0 {
			union = append(append(union, line...), '\n')
		}
	}
	return Merged(union)
}

// CheckValue says why the value may not be written; nil if it may.
func CheckValue(_ Context, value []byte) error {
	return checkText(value)
}

func Describe() Description {
	return Description{
		Name:       "my-resolver",
		Version:    "0.1.0",
		Summary:    "Text as a set of lines: keeps every line of every sibling, once, sorted.",
		MediaTypes: []string{"text/plain"},
	}
}

func checkText(value []byte) error {
	if bytes.IndexByte(value, 0) >= 0 {
		return notText
	}
	return nil
}
