"""my-resolver: text as a set of lines. Its merge has every line that any sibling has, once, sorted.

A lattice: a union does not care about grouping, order and repetition. Taking a line away holds only if nobody who
writes at the same time still has it.
"""

from componentize_py_types import Err
from wit_world.imports.types import (
    BadSibling, Failure_Malformed, Resolution_Delete, Resolution_Merged, Resolution_Pick,
)

DESCRIPTION = (
    "my-resolver",
    "0.1.0",
    "Text as a set of lines: keeps every line of every sibling, once, sorted.",
    ["text/plain"],
    None,  # the JSON Schema of the bucket's configuration
)

NOT_TEXT = "a zero byte: these are not lines of text"


def resolve(ctx, siblings):
    values = [sibling.value for sibling in siblings if sibling.value is not None]
    if not values:
        return Resolution_Delete()
    if len(values) == len(siblings) and all(value == values[0] for value in values):
        # A merge of equal values is that value, byte for byte.
        return Resolution_Pick(len(siblings) - 1)
    union = set()
    for index, sibling in enumerate(siblings):
        value = sibling.value or b""
        if b"\0" in value:
            raise Err(Failure_Malformed(BadSibling(index, NOT_TEXT)))
        union.update(value.split(b"\n"))
    # Sorted: the order of a Python set is not the same on every node.
    return Resolution_Merged(b"".join(line + b"\n" for line in sorted(union) if line))


def check_value(ctx, value):
    """Why the value may not be written; None if it may."""
    return NOT_TEXT if b"\0" in value else None
