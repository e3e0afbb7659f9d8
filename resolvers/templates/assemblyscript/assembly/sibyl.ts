// What the node calls and what it is answered, for AssemblyScript: layouts and export names of sibyl:resolver@0.1.0.
//
// Every call has a fresh instance, and its memory goes with it: build with `--runtime stub`, which frees nothing. The
// node makes a component of the module; plain export names are enough for it. You need not change this file.

// @ts-ignore: decorator
@external("sibyl:resolver/logging@0.1.0", "log")
declare function hostLog(level: u32, at: usize, length: usize): void;

export enum Level { Debug, Info, Warn, Error }

export function log(level: Level, message: string): void {
  const text = Bytes.of(message);
  hostLog(level, text.at, text.length);
}

/** A failed assertion or `throw`: logs its message and stops the merge; it fails, and the siblings stay. */
export function abort(message: string | null, file: string | null, line: u32, column: u32): void {
  log(Level.Error, `${message ? message : "abort"} (${file ? file : "?"}:${line}:${column})`);
  unreachable();
}

/** Bytes in memory, without a copy. */
export class Bytes {
  constructor(public at: usize, public length: i32) {}

  static of(text: string): Bytes {
    const encoded = String.UTF8.encode(text);
    return new Bytes(changetype<usize>(encoded), encoded.byteLength);
  }

  @operator("[]")
  get(index: i32): u8 {
    assert(<u32>index < <u32>this.length, "index out of range");
    return load<u8>(this.at + index);
  }

  slice(start: i32, end: i32): Bytes {
    assert(0 <= start && start <= end && end <= this.length, "slice out of range");
    return new Bytes(this.at + start, end - start);
  }

  /** Below, equal to or above 0: by bytes, and a beginning before the whole. */
  compare(other: Bytes): i32 {
    const order = memory.compare(this.at, other.at, min(this.length, other.length));
    return order != 0 ? order : this.length - other.length;
  }

  equals(other: Bytes): bool {
    return this.length == other.length && this.compare(other) == 0;
  }

  /** The text, if it is UTF-8. */
  toString(): string {
    return String.UTF8.decodeUnsafe(this.at, this.length);
  }
}

/** One of the concurrent versions of a key; without a value the client deleted it. */
export class Sibling {
  constructor(public value: Bytes | null, public modifiedAt: u64, public attributes: Map<string, string>) {}
}

/** Where the conflict is, and the bucket's `resolver.config` as JSON text. */
export class Context {
  constructor(
    public bucket: string,
    public key: Bytes,
    public config: string | null,
    public attributes: Map<string, string>,
  ) {}
}

/** What shall become of the siblings; or why there is no resolution, and then they stay as they are. */
export class Answer {
  private constructor(private words: u32[]) {}

  static merged(value: Bytes): Answer { return new Answer([0, 0, <u32>value.at, value.length, 0]); }
  static pick(index: u32): Answer { return new Answer([0, 1, index, 0, 0]); }
  static keep(indexes: u32[]): Answer { return new Answer([0, 2, <u32>indexes.dataStart, indexes.length, 0]); }
  static delete(): Answer { return new Answer([0, 3, 0, 0, 0]); }
  static malformed(index: u32, message: string): Answer {
    const text = Bytes.of(message);
    return new Answer([1, 0, index, <u32>text.at, text.length]);
  }
  static badConfig(message: string): Answer { return Answer.failure(1, message); }
  static declined(message: string): Answer { return Answer.failure(2, message); }
  static failed(message: string): Answer { return Answer.failure(3, message); }

  private static failure(which: u32, message: string): Answer {
    const text = Bytes.of(message);
    return new Answer([1, which, <u32>text.at, text.length, 0]);
  }

  lowered(): usize { return lower(this.words); }
}

export class Description {
  constructor(
    public name: string,
    public version: string,
    public summary: string,
    public mediaTypes: string[],
    public configSchema: string | null = null,
  ) {}

  lowered(): usize {
    const types: u32[] = [];
    for (let i = 0; i < this.mediaTypes.length; i++) push(types, this.mediaTypes[i]);
    const words: u32[] = [];
    push(words, this.name);
    push(words, this.version);
    push(words, this.summary);
    words.push(<u32>lower(types));
    words.push(this.mediaTypes.length);
    const schema = this.configSchema;
    words.push(schema ? 1 : 0);
    push(words, schema ? schema : "");
    return lower(words);
  }
}

/** Refused with a message, or accepted. */
export function loweredVerdict(refused: string | null): usize {
  const words: u32[] = [refused ? 1 : 0];
  push(words, refused ? refused : "");
  return lower(words);
}

export function context(
  bucket: usize, bucketLength: i32, key: usize, keyLength: i32, hasConfig: u32, config: usize, configLength: i32,
  attributes: usize, attributeCount: i32,
): Context {
  return new Context(
    textAt(bucket, bucketLength),
    new Bytes(key, keyLength),
    hasConfig ? textAt(config, configLength) : null,
    attributeMap(attributes, attributeCount),
  );
}

export function siblings(at: usize, count: i32): Sibling[] {
  const all: Sibling[] = [];
  for (let i = 0; i < count; i++, at += 32) {
    const value = load<u8>(at) ? new Bytes(load<u32>(at, 4), load<i32>(at, 8)) : null;
    all.push(new Sibling(value, load<u64>(at, 16), attributeMap(load<u32>(at, 24), load<i32>(at, 28))));
  }
  return all;
}

function attributeMap(at: usize, count: i32): Map<string, string> {
  const all = new Map<string, string>();
  for (let i = 0; i < count; i++, at += 16) {
    all.set(textAt(load<u32>(at), load<i32>(at, 4)), textAt(load<u32>(at, 8), load<i32>(at, 12)));
  }
  return all;
}

function textAt(at: usize, length: i32): string {
  return String.UTF8.decodeUnsafe(at, length);
}

function push(words: u32[], text: string): void {
  const bytes = Bytes.of(text);
  words.push(<u32>bytes.at);
  words.push(bytes.length);
}

function lower(words: u32[]): usize {
  const at = heap.alloc(4 * words.length);
  memory.copy(at, words.dataStart, 4 * words.length);
  return at;
}

export function cabi_realloc(old: usize, oldSize: usize, alignment: usize, size: usize): usize {
  if (size == 0) return alignment;
  const at = heap.alloc(size);
  memory.copy(at, old, min(oldSize, size));
  return at;
}
