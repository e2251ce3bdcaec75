"""Encodes the values of frames, events and ends of runs in Avro, and refuses those that ingest would refuse."""

from __future__ import annotations

import re
from enum import Enum, IntEnum
from operator import index
from typing import Any

import numpy as np

from oona_client.split import zigzag

END = b"\0"  # the end of the blocks of an array

_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")
_EARLIEST, _LATEST = 946_684_800_000_000, 7_258_118_400_000_000  # the first microseconds of the years 2000 and 2200


class State(IntEnum):
    """The state of a seed in its lifecycle. Frames and events have the ordinal."""

    DORMANT = 0
    GERMINATED = 1
    TRAINING = 2
    GRAFTING = 3
    STABILIZATION = 4
    EVALUATING = 5
    FINE_TUNING = 6
    FOSSILIZED = 7
    CULLED = 8
    CANCELLED = 9
    ROLLED_BACK = 10


class Outcome(Enum):
    """How a run has ended. Its end has the ordinal."""

    COMPLETED = 0  # the training is done
    STOPPED = 1  # somebody or something has stopped it before that; it may be resumed
    FAILED = 2  # it has ended with an error


class InvalidFrame(ValueError):
    """A frame, an event or an end of a run that ingest would refuse. field names the part that is wrong."""

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(f"{field}: {reason}" if field else reason)
        self.field = field
        self.reason = reason


class InvalidSetting(InvalidFrame):
    """An argument of Client that is not a valid id. It is a ValueError, as for other arguments, and an InvalidFrame, as in earlier versions."""


class InvalidType(InvalidSetting, TypeError):
    """An argument of Client that must be an id and is not a string."""


def shown(value: Any) -> str:
    """Return a value as text for a message. If it is not a plain value, return only its type: its repr may be long, or wait for a device."""
    try:
        if isinstance(value, (str, bytes)):
            return repr(value[:100]) + ("..." if len(value) > 100 else "")
        if isinstance(value, int) and value.bit_length() > 128:
            return f"an integer of {value.bit_length()} bits"
        if value is None or isinstance(value, (int, float, np.generic)):
            return repr(value)
    except Exception:  # the repr of a subclass may raise
        pass
    return f"of the type {type(value).__name__}"


def told(failure: BaseException) -> str:
    """Return the message of an exception, at most 500 characters of it in one line, or only its type if even its str raises."""
    try:
        text = str(failure)
        return text if len(text) <= 500 and "\n" not in text else " ".join(text[:500].split()) + " ..."
    except Exception:
        return f"{type(failure).__name__}, which has no message, as its str raises"


def within(argument: str, name: Any) -> str:
    """Return the field of an entry of an argument, such as metrics.loss. A name that is not a string is left out, because it may not be printable."""
    return ".".join((argument, name)) if isinstance(name, str) else argument


def array(values: Any, argument: str, name: Any = None) -> np.ndarray:
    """Return the values as an array. argument is the argument of frame(), and name is the name of the metric."""
    try:
        if isinstance(values, np.ma.MaskedArray) and np.ma.getmaskarray(values).any():
            return _unmasked(values, argument)
        return np.asarray(values)
    except InvalidFrame:
        raise
    except Exception as failure:  # from NumPy, or from a method of the values
        raise InvalidFrame(within(argument, name), f"NumPy cannot make an array of it: {told(failure)}") from failure


def _unmasked(values: Any, argument: str) -> np.ndarray:
    """Return an array without its mask. Masked values were not measured, so they become NaN."""
    if argument != "metrics":
        raise InvalidFrame(argument, "has masked values; only those of metrics may be masked")
    if values.dtype.kind not in "fiub":
        return np.asarray(values)  # the caller refuses it
    plain: np.ndarray = np.ma.filled(values if values.dtype.kind == "f" else values.astype(np.float64), np.nan)
    return plain


def long(n: int, field: str = "") -> bytes:
    """Encode an int or a long, of any type of integers."""
    try:
        n = index(n)  # an integer of NumPy would wrap around in zigzag()
    except Exception:  # usually a TypeError, but a method of n may raise anything
        raise InvalidFrame(field, f"{shown(n)} is not an integer") from None
    if not -(2**63) <= n < 2**63:
        raise InvalidFrame(field, f"{shown(n)} is not an integer of 64 bits")
    return zigzag(n)


def text(s: str) -> bytes:
    """Encode a string."""
    b = s.encode()
    return long(len(b)) + b


def ints(values: np.ndarray) -> bytes:
    """Encode an array of ints of 32 bits."""
    if len(values) == 0:
        return END
    n = values.astype(np.int64)
    n = (n << 1) ^ (n >> 63)
    shifts = np.arange(0, 35, 7)
    groups = (n[:, None] >> shifts) & 0x7F
    # A byte is needed if it is the first one, or if it or a later one is not 0.
    needed = (n[:, None] >> shifts) != 0
    needed[:, 0] = True
    groups[:, :-1] |= np.where(needed[:, 1:], 0x80, 0)
    packed: bytes = groups[needed].astype(np.uint8).tobytes()
    return long(len(values)) + packed + END


def identifier(field: str, s: str, *, empty: bool = False) -> str:
    """Return s if it is a valid id."""
    if not isinstance(s, str) or not (_ID.fullmatch(s) or empty and not s):
        raise InvalidFrame(field, f"{shown(s)} is not an id: 1 to 128 ASCII letters, digits and . _ : -")
    return s


def whole(field: str, n: Any) -> int:
    """Return n as an int, if it is an integer of any type."""
    try:
        return index(n)
    except Exception:  # usually a TypeError, but a method of n may raise anything
        raise InvalidFrame(field, f"{shown(n)} is not an integer") from None


def number(field: str, n: Any, *, below: int = 2**63) -> bytes:
    """Encode an integer that counts from 0."""
    n = whole(field, n)
    if not 0 <= n < below:
        raise InvalidFrame(field, f"{shown(n)} is not from 0 to {below - 1}")
    return zigzag(n)


def moment(field: str, n: Any) -> bytes:
    """Encode a time in microseconds since the Unix epoch. Times in other units are out of bounds."""
    n = whole(field, n)
    if not _EARLIEST <= n < _LATEST:
        raise InvalidFrame(field, f"{shown(n)} is not a time from 2000 to 2199 in microseconds since the Unix epoch")
    return zigzag(n)
