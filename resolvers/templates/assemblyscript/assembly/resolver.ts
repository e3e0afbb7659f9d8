// my-resolver: text as a set of lines. Its merge has every line that any sibling has, once, sorted.
//
// A lattice: a union does not care about grouping, order and repetition. Taking a line away holds only if nobody who
// writes at the same time still has it.

import { Answer, Bytes, Context, Description, Sibling, context, loweredVerdict, siblings } from "./sibyl";

const NOT_TEXT = "a zero byte: these are not lines of text";

function resolveAll(_context: Context, siblings: Sibling[]): Answer {
  const first = siblings[0].value;
  const lines: Bytes[] = [];
  let values = 0;
  let bytes = 0;
  let alike = true;
  for (let i = 0; i < siblings.length; i++) {
    const value = siblings[i].value;
    if (!value) continue;
    values++;
    bytes += value.length;
    alike = alike && first != null && value.equals(first);
  }
  if (values == 0) return Answer.delete();
  // A merge of equal values is that value, byte for byte.
  if (alike && values == siblings.length) return Answer.pick(siblings.length - 1);
  for (let i = 0; i < siblings.length; i++) {
    const value = siblings[i].value;
    if (!value) continue;
    if (!isText(value)) return Answer.malformed(i, NOT_TEXT);
    addLines(value, lines);
  }
  lines.sort((one, other) => one.compare(other));
  // Each line has an end here; an unfinished last one had none.
  const text = new Bytes(heap.alloc(bytes + values), 0);
  for (let i = 0; i < lines.length; i++) {
    const line = lines[i];
    if (i > 0 && line.equals(lines[i - 1])) continue;
    memory.copy(text.at + text.length, line.at, line.length);
    store<u8>(text.at + text.length + line.length, 10);
    text.length += line.length + 1;
  }
  return Answer.merged(text);
}

/** Why the value may not be written; null if it may. */
function checkOne(_context: Context, value: Bytes): string | null {
  return isText(value) ? null : NOT_TEXT;
}

function describeMe(): Description {
  return new Description(
    "my-resolver",
    "0.1.0",
    "Text as a set of lines: keeps every line of every sibling, once, sorted.",
    ["text/plain"],
  );
}

function isText(value: Bytes): bool {
  for (let i = 0; i < value.length; i++) {
    if (value[i] == 0) return false;
  }
  return true;
}

function addLines(value: Bytes, lines: Bytes[]): void {
  let start = 0;
  for (let i = 0; i <= value.length; i++) {
    if (i < value.length && value[i] != 10) continue;
    if (i > start) lines.push(value.slice(start, i));
    start = i + 1;
  }
}

// What the node calls, in the numbers of the component model's ABI.

export { cabi_realloc } from "./sibyl";

export function resolve(
  bucket: usize, bucketLength: i32, key: usize, keyLength: i32, hasConfig: u32, config: usize, configLength: i32,
  attributes: usize, attributeCount: i32, at: usize, count: i32,
): usize {
  const where = context(
    bucket, bucketLength, key, keyLength, hasConfig, config, configLength, attributes, attributeCount);
  return resolveAll(where, siblings(at, count)).lowered();
}

export function check_value(
  bucket: usize, bucketLength: i32, key: usize, keyLength: i32, hasConfig: u32, config: usize, configLength: i32,
  attributes: usize, attributeCount: i32, value: usize, length: i32,
): usize {
  const where = context(
    bucket, bucketLength, key, keyLength, hasConfig, config, configLength, attributes, attributeCount);
  return loweredVerdict(checkOne(where, new Bytes(value, length)));
}

export function describe(): usize {
  return describeMe().lowered();
}
