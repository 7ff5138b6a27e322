"""What may come of an input: a score, or one clear error. Anything else is a defect of ours."""

from __future__ import annotations

import contextlib
import io
import math
import re
import signal
import tempfile
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from lifeiqa_plugin import cli

GOOD = ("score", "accepted", "error")
LONGEST = 60
"""Seconds after which a case counts as hanging."""


class Outcome(NamedTuple):
    """One of ``GOOD``, or ``traceback``, ``not one line``, ``not finite``, ``hang``; and what was said."""

    kind: str
    text: str


class HangError(BaseException):
    """Raised by the clock; no handler of the package may catch it."""


def judge(function: Callable[[], Any]) -> Outcome:
    """Call and classify: a number is a score, None is accepted, our errors are errors, all else is a defect."""
    try:
        with time_limit(LONGEST):
            value = function()
    except HangError:
        return Outcome("hang", f"more than {LONGEST} s")
    except cli.FAILURES as error:
        return _judge_message(f"{type(error).__name__}: {error}")
    except Exception as error:
        return Outcome("traceback", f"{type(error).__name__}: {error}")
    if value is None:
        return Outcome("accepted", "accepted")
    if not math.isfinite(value):
        return Outcome("not finite", str(value))
    return Outcome("score", f"scored {value:.3f}")


def judge_command(*arguments: object) -> Outcome:
    """Run ``lifeiqa ...`` in this process and classify by exit status and what it wrote."""
    out, err = io.StringIO(), io.StringIO()
    try:
        with time_limit(LONGEST), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            status = cli.main([str(argument) for argument in arguments])
    except HangError:
        return Outcome("hang", f"more than {LONGEST} s")
    except SystemExit as error:  # argparse
        status = error.code
    except Exception as error:
        return Outcome("traceback", f"{type(error).__name__}: {error}")
    if status == 0:
        return Outcome("accepted", _last_line(out.getvalue()))
    lines = [line for line in re.split(r"[\r\n]+", err.getvalue()) if "lifeiqa" in line]
    return _judge_message(lines[-1] if lines else "")


def _judge_message(text: str) -> Outcome:
    text = shorten(text)
    is_clear = bool(text.partition(":")[2].strip()) and "\n" not in text
    return Outcome("error" if is_clear else "not one line", text)


def _last_line(text: str) -> str:
    lines = text.strip().splitlines()
    return shorten(lines[-1]) if lines else "accepted"


def shorten(text: str) -> str:
    """Leave the temporary folder out of a message, so that it reads the same each time."""
    text = re.sub(rf"{re.escape(tempfile.gettempdir())}/[^/\s:'\"]+/", "", text)
    return text if len(text) <= 300 else f"{text[:300]} ..."


@contextlib.contextmanager
def time_limit(seconds: int) -> Iterator[None]:
    """Raise ``HangError`` in the main thread after so long."""

    def ring(*_: object) -> None:
        raise HangError

    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
