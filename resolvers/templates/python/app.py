"""What the node calls: it hands on to resolver.py, and an exception there becomes a failure with its message.

Without that Python would stop with a bare `unreachable`. The siblings stay in any case. You need not change this file
unless you export more (see wit/world.wit).
"""

from componentize_py_types import Err
from wit_world.exports.describe import Description
from wit_world.imports import types

import resolver


class Merge:
    def resolve(self, ctx, siblings):
        try:
            return resolver.resolve(ctx, siblings)
        except Err:
            raise
        except BaseException as error:
            raise Err(types.Failure_Other(_message(error))) from None


class CheckValue:
    def check(self, ctx, value):
        try:
            refused = resolver.check_value(ctx, value)
        except BaseException as error:
            refused = _message(error)
        if refused is not None:
            raise Err(refused)


class Describe:
    def describe(self):
        return Description(*resolver.DESCRIPTION)


def _message(error):
    at = error.__traceback__
    while at is not None and at.tb_next is not None:
        at = at.tb_next
    # Not with `traceback`: it wants to read the sources, and there are no files.
    where = f" ({at.tb_frame.f_code.co_filename}:{at.tb_lineno})" if at else ""
    return f"{type(error).__name__}: {error}{where}"
