// What wraps your functions: an exception becomes a failure with its message, and the siblings stay.
//
// Without it QuickJS would stop with a bare `unreachable`. To fail in another way, throw one of these objects:
//   {tag: "malformed", val: {index, message}}   one sibling is not what this resolver understands
//   {tag: "bad-config", val: message}           the bucket's configuration is wrong
//   {tag: "declined", val: message}             a person must decide

/** `resolve` of `merge`: any other exception becomes `other`. */
export function failing(resolve) {
  return (context, siblings) => {
    try {
      return resolve(context, siblings);
    } catch (error) {
      throw error !== null && typeof error === "object" && "tag" in error ? error : { tag: "other", val: message(error) };
    }
  };
}

/** A check that refuses with the message of what is thrown. */
export function refusing(check) {
  return (...given) => {
    try {
      check(...given);
    } catch (error) {
      throw message(error);
    }
  };
}

function message(error) {
  if (!(error instanceof Error)) return String(error);
  const where = String(error.stack ?? "").trim().split("\n")[0];
  return where ? `${error} (${where.trim()})` : String(error);
}

/** Bytes as a string of one character per byte, which sorts as the bytes do. QuickJS here has no TextDecoder. */
export function latin1(bytes) {
  let text = "";
  // In steps, since a call takes only so many arguments.
  for (let i = 0; i < bytes.length; i += 4096) text += String.fromCharCode(...bytes.subarray(i, i + 4096));
  return text;
}

/** And back. */
export function bytes(latin1) {
  const all = new Uint8Array(latin1.length);
  for (let i = 0; i < latin1.length; i++) all[i] = latin1.charCodeAt(i);
  return all;
}
