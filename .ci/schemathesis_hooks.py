"""What Schemathesis cannot draw from the document of a Sibyl node, and what the document cannot say.

Uploads: modules that the repository ships, WAT, and both mutilated, so that uploads are taken, and refused for
every reason. What they were answered is printed at the end; a run in which none was taken fails.

Failures that are the document's limits and not the node's: each is told by the request itself, and only then
dropped. Nothing is dropped because of a status alone.
"""

import atexit
import collections
import json
import os
import pathlib
import re

import schemathesis
from hypothesis import strategies as st

PREBUILT = pathlib.Path(__file__).resolve().parent.parent / "resolvers" / "prebuilt"
# The two small ones: each new upload is compiled on every node, the large ones for many seconds.
MODULES = [(PREBUILT / f"{name}.wasm").read_bytes() for name in ("lww", "set-union")]
WAT = """(module
  (memory (export "memory") 1)
  (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) i32.const 1024)
  (func (export "resolve") (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32) (result i32)
    (i32.store8 (i32.const 20) (i32.const 1))
    i32.const 16){}
)
"""
# Resolvers in form, but they end before they can be asked, or want more memory than a resolver gets.
STUCK = WAT.format("\n  (func $stop unreachable)\n  (start $stop)")
LARGE = WAT.format("").replace('"memory") 1)', '"memory") 4096)')


def named(module: bytes, name: bytes) -> bytes:
    """The module with one more custom section: another version that does the same."""
    section = bytes([len(name)]) + name
    return module + bytes([0, len(section)]) + section


@st.composite
def mutilated(draw, whole):
    """Cut off, or with bytes overwritten."""
    module = bytearray(draw(whole))
    if draw(st.booleans()):
        return bytes(module[: draw(st.integers(0, len(module) - 1))])
    at = draw(st.integers(0, len(module) - 1))
    piece = draw(st.binary(min_size=1, max_size=8))
    module[at : at + len(piece)] = piece
    return bytes(module)


whole = st.sampled_from([*MODULES, *(named(module, b"v2") for module in MODULES)])
texts = st.sampled_from([WAT.format(""), WAT.format("\n  ;; v2")]).map(str.encode)
stuck = st.sampled_from([STUCK, LARGE]).map(str.encode)
schemathesis.openapi.media_type("application/wasm", whole | mutilated(whole) | st.binary(max_size=64))
schemathesis.openapi.media_type("text/plain", texts | stuck | mutilated(texts) | st.text(max_size=64).map(str.encode))

UPLOADS = collections.Counter()


@schemathesis.hook
def after_call(context, case, response):
    if case.operation.definition.raw.get("operationId") == "putResolver":
        UPLOADS[response.status_code] += 1


@atexit.register
def report():
    seen = ", ".join(f"{status}: {count}" for status, count in sorted(UPLOADS.items()))
    print(f"uploads answered with {seen}", flush=True)
    if path := os.environ.get("SIBYL_UPLOADS"):
        pathlib.Path(path).write_text(json.dumps(UPLOADS))


# A drawn name that happens to be a member's would take the cluster apart under the test: nobody is called so.
MEMBERS = {"joinCluster", "leaveCluster", "removeMember", "replaceMember"}


@schemathesis.hook
def before_call(context, case, kwargs):
    operation = case.operation.definition.raw.get("operationId")
    if operation == "putResolver" and (case.query or {}).get("check") == "thorough" and UPLOADS[202] >= 2:
        case.query["check"] = "off"  # minutes of work each
    if operation == "checkResolver" and isinstance(case.body, dict) and "cases" in case.body:
        if isinstance(case.body["cases"], int):
            case.body["cases"] = min(case.body["cases"], 64)
    if case.operation.definition.raw.get("operationId") in MEMBERS and isinstance(case.body, dict):
        for field in ("node", "with"):
            name = case.body.get(field)
            if isinstance(name, str) and re.fullmatch(r"[A-Za-z0-9._-]{1,64}", name):
                case.body[field] = ("nobody." + name)[:64]


@schemathesis.hook
def filter_failure(context, failure, case, response):
    if "ensure_resource_availability" in failure.checks:
        # A key that is not UTF-8 comes back as {"base64": …}, and links write that into a path as it is.
        return not str(case.path_parameters.get("key", "")).startswith("{")
    if "positive_data_acceptance" in failure.checks:
        return not (is_out_of_form(case) or is_beyond_schemas(case, code(response)))
    return True


def code(response):
    try:
        return response.json().get("code")
    except ValueError:  # an answer to HEAD
        return None


def is_out_of_form(case):
    """`If-Match` and `If-None-Match` are drawn without a look at the pattern that the document has for them."""
    headers = {name.lower(): value for name, value in (case.headers or {}).items()}
    for parameter in case.operation.definition.raw.get("parameters", []):
        pattern = parameter.get("schema", {}).get("pattern")
        value = headers.get(parameter["name"].lower())
        if parameter["in"] == "header" and pattern and value is not None and not re.search(pattern, str(value)):
            return True
    return False


def is_beyond_schemas(case, code):
    """What depends on more than one field, or on what only the node can know."""
    operation = case.operation.definition.raw.get("operationId")
    if code == "bad_context":
        return True  # sealed by the node: nobody can draw one
    if code == "idempotency_key_reused":
        return True  # drawn keys are short: another case wrote something else under the same one
    if code == "too_large":
        return True  # each bucket says how large its values may be
    if operation == "putLog" and code == "bad_filter":
        return True  # a filter has a grammar of its own
    if operation in ("getKey", "headKey"):
        return is_true(case.query.get("siblings")) and is_true(case.query.get("explain"))
    if operation == "deleteKey":
        has_context = any(name.lower() == "sibyl-context" for name in case.headers or {})
        return has_context == is_true(case.query.get("blind"))
    if operation == "putBucket" and code == "bad_config":
        # Each field is in form: they contradict one another, the path, or what the bucket has already.
        return True
    if operation == "checkResolver" and code in ("laws_unknown", "bad_resolver_config"):
        return True  # drawn samples are no values to the resolver, or it refuses the configuration
    if operation == "putBucket" and code in ("laws_unknown", "laws_broken", "bad_resolver_config"):
        return True  # only the node knows what a version keeps
    if operation == "tryResolver" and code == "bad_trial":
        # Instants are counted from 1970; the form of a date knows no such bound.
        return any((sibling.get("modified_at") or "9") < "1971" for sibling in case.body["siblings"])
    return False


def is_true(value):
    return str(value).lower() == "true"
