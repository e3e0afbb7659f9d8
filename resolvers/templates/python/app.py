"""What the node calls: it hands on to resolver.py, and an exception there becomes a failure with its message.

Without that Python would stop with a bare `unreachable`. The siblings stay in any case. You need not change this file
unless you export more (see wit/world.wit).
"""

import traceback

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
    frames = traceback.extract_tb(error.__traceback__)
    where = f" ({frames[-1].filename}:{frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}: {error}{where}"
