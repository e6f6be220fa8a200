"""The errors a user meets: one sentence each, `thing: rule, got value`."""

import difflib
import errno
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import takewhile

LONGEST = 300  # characters of what somebody else says
MOST = 20  # valid values that a sentence lists


class FedsimError(Exception):
    """A failure that is explained in one sentence; the command line exits with `code`."""

    code = 1


class ConfigError(FedsimError):
    """The user asked for something that does not exist or is out of range."""

    code = 2


class RunStopped(FedsimError):
    """A run ended before its last round; what was recorded stays readable."""


class ClaimRefuted(FedsimError):
    """An audit found that a mechanism is not as private as it claims, or not what it claims."""

    code = 3


class NoAnswer(FedsimError):
    """No attack of a family answered, and the user asked for an error where that is so."""

    code = 3


class GateNotMet(FedsimError):
    """A run violates a rule of `fedsim check`, or cannot show that it keeps it."""

    code = 3


class ContractBroken(FedsimError):
    """An attack does not keep the contract of attacks."""

    code = 3


class BadRecording(FedsimError):
    """A file of a run folder is missing, damaged, or from somewhere else.

    A sentence of more than 1,000 characters is cut: whoever wrote the file chose its values.
    """

    def __init__(self, sentence: str) -> None:
        super().__init__(shortened(sentence))


class NotApplicable(ValueError):
    """An attack refuses a model, a client or a setting that it is not made for.

    Also an option out of range. It says so before it works on the update; what goes wrong on an
    update is a failure.
    """


class Remark(UserWarning):
    """What an attack says about its own answer, by `warnings.warn`; kept beside the answer."""


@contextmanager
def remarks_of_attacks() -> Iterator[list[str]]:
    """Collect the remarks of attacks inside the block; other warnings are passed on."""
    remarks: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", Remark)
        yield remarks
    for it in caught:
        if issubclass(it.category, Remark):
            remarks.append(str(it.message))
        else:
            warnings.warn_explicit(it.message, it.category, it.filename, it.lineno)


def nearest(name: str, valid: Iterable[str]) -> str:
    """Return the end of a sentence that names the valid value nearest to `name`."""
    valid = sorted(valid)
    if close := closest(name, valid):
        return f"did you mean '{close}'?"
    more = f", … ({len(valid)} in all)" if len(valid) > MOST else ""
    return f"one of {', '.join(valid[:MOST])}{more}"


def closest(name: str, valid: Iterable[str], *, cutoff: float = 0.5) -> str | None:
    """Return the value most like `name`, None if none is; of equals the one that begins like it.

    Capital letters, `_` and `-` make no difference.
    """
    text = _plain(name)
    matcher = difflib.SequenceMatcher(b=text)

    def likeness(value: str) -> tuple[float, int]:
        matcher.set_seq1(_plain(value))
        begin = takewhile(lambda pair: pair[0] == pair[1], zip(_plain(value), text, strict=False))
        return matcher.ratio(), len(list(begin))

    best = max(sorted(valid), key=likeness, default=None)
    return best if best is not None and likeness(best)[0] >= cutoff else None


def _plain(text: str) -> str:
    return text.lower().replace("_", "-")


def is_disk_full(error: BaseException) -> bool:
    """Return whether an error says that there is no room for a file."""
    full = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    return isinstance(error, OSError) and error.errno in full


def one_line(error: BaseException) -> str:
    """Return what an error says, on one line; its type where it says nothing."""
    try:
        text = str(error)
    except Exception:  # foreign code wrote its `__str__`
        text = ""
    return " ".join(text.split()) or type(error).__name__


def shortened(sentence: str) -> str:
    """Return a sentence of at most 1,000 characters, its beginning and its end."""
    return sentence if len(sentence) <= 1000 else f"{sentence[:500]}…{sentence[-400:]}"


def plain(text: object) -> str:
    """Return somebody else's text as it can be printed and stored: one line of 300 characters.

    Half characters (lone surrogates) and control characters are shown by question marks.
    """
    line = " ".join(str(text).split())
    line = "".join(c if c.isprintable() else "?" for c in line[: LONGEST + 1])
    return line if len(line) <= LONGEST else f"{line[: LONGEST - 1]}…"
