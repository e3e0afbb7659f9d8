// my-resolver: text as a set of lines. Its merge has every line that any sibling has, once, sorted.
//
// A lattice: a union does not care about grouping, order and repetition. Taking a line away holds only if nobody who
// writes at the same time still has it.

import { bytes, failing, latin1, refusing } from "./sibyl.js";

const NOT_TEXT = "a zero byte: these are not lines of text";

function resolve(_context, siblings) {
  const texts = siblings.map(({ value }) => (value == null ? null : latin1(value)));
  const values = texts.filter((text) => text !== null);
  if (values.length === 0) return { tag: "delete" };
  // A merge of equal values is that value, byte for byte.
  if (texts.every((text) => text !== null && text === texts[0])) return { tag: "pick", val: siblings.length - 1 };
  const bad = texts.findIndex((text) => text !== null && text.includes("\0"));
  if (bad >= 0) throw { tag: "malformed", val: { index: bad, message: NOT_TEXT } };
  const lines = new Set(values.flatMap((text) => text.split("\n")));
  lines.delete("");
  return { tag: "merged", val: bytes([...lines].sort().map((line) => line + "\n").join("")) };
}

/** Throws why the value may not be written. */
function check(_context, value) {
  if (value.includes(0)) throw NOT_TEXT;
}

export const merge = { resolve: failing(resolve) };

export const checkValue = { check: refusing(check) };

export const describe = {
  describe: () => ({
    name: "my-resolver",
    version: "0.1.0",
    summary: "Text as a set of lines: keeps every line of every sibling, once, sorted.",
    mediaTypes: ["text/plain"],
    configSchema: undefined,
  }),
};
