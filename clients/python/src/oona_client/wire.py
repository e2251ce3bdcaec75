"""Frames and events as Oona takes them: Avro in single-object encoding.

A column of metric values is in Avro what it is in memory, little-endian
floats, so a frame is mostly copied. What repeats from frame to frame, such as
the seed ids, is encoded once.
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Iterable, Mapping, Sequence
from enum import IntEnum
from operator import index
from typing import Any

import numpy as np

from oona_client.split import zigzag

FRAME_HEADER = bytes.fromhex("c301938f0ada0e672950")
"""Of a SeedMetrics version 1: the marker, and the schema's CRC-64-AVRO fingerprint in little-endian order."""

EVENT_HEADER = bytes.fromhex("c30130200c0808e9cbc4")
"""Of a SeedEvent version 2."""

MAX_SEEDS = 65_536
MAX_METRICS = 64
MAX_DIMENSIONS = 64
MAX_REASON = 1024  # bytes
MAX_EVIDENCE = 64

_ELEMENT_BYTES = {
    "bool": 1, "int8": 1, "uint8": 1, "float16": 2, "bfloat16": 2, "int16": 2, "uint16": 2,
    "float32": 4, "int32": 4, "uint32": 4, "float64": 8, "int64": 8, "uint64": 8,
}

Column = np.ndarray[Any, np.dtype[np.float32]]

_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")
_MARKS = ("NORMAL", "ADOPTED", "REWOUND")
_END = b"\0"
_EARLIEST, _LATEST = 946_684_800_000_000, 7_258_118_400_000_000  # the beginnings of 2000 and of 2200, in microseconds
ORDINALS = bytes(range(11))


class State(IntEnum):
    """A seed's place in its lifecycle. The ordinals are on the wire."""

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


class InvalidFrame(ValueError):
    """A frame or an event that Oona would refuse. field says where it is wrong."""

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(f"{field}: {reason}" if field else reason)
        self.field = field
        self.reason = reason


def shown(value: Any) -> str:
    """Return a value for a message. Only the type is named of what is not a plain one: its repr may be long, or wait for a device."""
    try:
        if isinstance(value, (str, bytes)):
            return repr(value[:100]) + ("..." if len(value) > 100 else "")
        if isinstance(value, int) and value.bit_length() > 128:
            return f"an integer of {value.bit_length()} bits"
        if value is None or isinstance(value, (int, float, np.generic)):
            return repr(value)
    except Exception:  # of a subclass, whose repr may do anything
        pass
    return f"of the type {type(value).__name__}"


def told(failure: BaseException) -> str:
    """Return what an exception says. One of the caller's objects may fail even at that; then only its type is named."""
    try:
        return str(failure)
    except Exception:
        return f"{type(failure).__name__}, which has no message, as its str raises"


def array(values: Any, argument: str, name: Any = None) -> np.ndarray:
    """Return the values as an array. argument is that of frame(), and name is that of a metric."""
    try:
        if isinstance(values, np.ma.MaskedArray) and np.ma.getmaskarray(values).any():
            return _unmasked(values, argument)
        return np.asarray(values)
    except InvalidFrame:
        raise
    except Exception as failure:  # of NumPy, or of what the values do when they are asked
        raise InvalidFrame(argument if name is None else f"{argument}.{name}", f"NumPy cannot make an array of it: {told(failure)}") from failure


def _unmasked(values: Any, argument: str) -> np.ndarray:
    """Return an array without its mask. What is masked was not measured, whatever is stored in its place."""
    if argument != "metrics":
        raise InvalidFrame(argument, "has masked values; only those of metrics may be masked")
    if values.dtype.kind not in "fiub":
        return np.asarray(values)  # the caller refuses it
    plain: np.ndarray = np.ma.filled(values if values.dtype.kind == "f" else values.astype(np.float64), np.nan)
    return plain


def long(n: int, field: str = "") -> bytes:
    """Encode an int or a long, of any type of integers."""
    try:
        n = index(n)  # an integer of NumPy would wrap around in what follows
    except Exception:  # usually a TypeError, but n may do anything when it is asked
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
        return _END
    n = values.astype(np.int64)
    n = (n << 1) ^ (n >> 63)
    shifts = np.arange(0, 35, 7)
    groups = (n[:, None] >> shifts) & 0x7F
    # A byte is needed if it is the first, or if it or a later one is not 0.
    needed = (n[:, None] >> shifts) != 0
    needed[:, 0] = True
    groups[:, :-1] |= np.where(needed[:, 1:], 0x80, 0)
    packed: bytes = groups[needed].astype(np.uint8).tobytes()
    return long(len(values)) + packed + _END


def identifier(field: str, s: str, *, empty: bool = False) -> str:
    """Return s if it is a valid id."""
    if not isinstance(s, str) or not (_ID.fullmatch(s) or empty and not s):
        raise InvalidFrame(field, f"{shown(s)} is not an id: 1 to 128 letters, digits and . _ : -")
    return s


def seeds(seed_ids: Any) -> np.ndarray:
    """Return the ids as an array of 32-bit integers, if they are valid."""
    ids = array(seed_ids, "seed_ids")
    if ids.ndim != 1:
        raise InvalidFrame("seed_ids", f"has {ids.ndim} dimensions, not 1; it is an array, a list or a range of integers")
    if not len(ids):
        raise InvalidFrame("seed_ids", "is empty; a frame has at least one reading")
    if ids.dtype.kind not in "iu":
        raise InvalidFrame("seed_ids", f"is of {ids.dtype}, not of integers")
    if len(ids) > MAX_SEEDS:
        raise InvalidFrame("seed_ids", f"has {len(ids)} seeds; a frame has at most {MAX_SEEDS}")
    if ids.min() < 0 or ids.max() > 2**31 - 1:
        raise InvalidFrame("seed_ids", "has an id that is negative or above 2147483647")
    if len(np.unique(ids)) != len(ids):
        raise InvalidFrame("seed_ids", "has an id twice")
    return ids.astype(np.int32)


def states_of(states: Any, count: int) -> bytes:
    """Return one ordinal a seed."""
    if isinstance(states, (bytes, bytearray)):
        ordinals = np.frombuffer(states, np.uint8)
    else:
        ordinals = array(states, "states")
        if not ordinals.ndim:
            ordinals = np.full(count, ordinals)
        if ordinals.dtype.kind not in "iu" and ordinals.size:
            raise InvalidFrame("states", f"is of {ordinals.dtype}; it is one State or ordinal for each seed, or one for all seeds")
    if ordinals.shape != (count,):
        raise InvalidFrame("states", f"has the shape {ordinals.shape}, and there are {count} seeds")
    if ordinals.dtype != np.uint8:
        if not 0 <= int(ordinals.min()) <= int(ordinals.max()) <= 10:
            raise InvalidFrame("states", "has an ordinal that is not from 0 to 10")
        ordinals = ordinals.astype(np.uint8)
    encoded: bytes = ordinals.tobytes()
    if encoded.translate(None, ORDINALS):
        raise InvalidFrame("states", "has an ordinal that is not from 0 to 10")
    return encoded


def column(name: str, values: Any, count: int) -> Column:
    """Return the values of a metric as contiguous little-endian floats, one a seed."""
    if not (type(values) is np.ndarray and values.dtype == np.float32):
        values = array(values, "metrics", name)
        if values.dtype.kind not in "fiub":
            raise InvalidFrame(f"metrics.{name}", f"is of {values.dtype}, not of numbers")
    if values.shape != (count,):
        raise InvalidFrame(f"metrics.{name}", f"has the shape {values.shape}, and there are {count} seeds")
    if values.dtype == "<f4" and values.flags.c_contiguous:
        same: Column = values
        return same
    with np.errstate(over="ignore"):  # what is too large for a float becomes an infinity, which Oona counts
        return np.ascontiguousarray(values, "<f4")


def metric_name(name: str) -> bytes:
    """Encode the name of a metric."""
    return text(identifier("metrics.name", name))


def among(seed_ids: Iterable[Any], ids: np.ndarray) -> None:
    """Check that the seeds of tensors are seeds of their frame."""
    known = set(ids.tolist())
    for seed in seed_ids:
        if seed not in known:
            raise InvalidFrame("tensors.seed_id", f"{shown(seed)} is none of the frame's seed_ids")


def tensor(name: str, seed_id: int, dtype: str, shape: Iterable[int], data: Any) -> list[bytes]:
    """Encode a tensor of a seed. data is bytes, or a claim as a mapping."""
    parts = [text(identifier("tensors.name", name)), long(int(seed_id)), text(str(dtype))]
    lengths = [int(n) for n in shape]
    each = _ELEMENT_BYTES.get(str(dtype))
    if each is None:
        raise InvalidFrame("tensors.dtype", f"is {str(dtype)!r}, which is none of {', '.join(_ELEMENT_BYTES)}")
    if len(lengths) > MAX_DIMENSIONS:
        raise InvalidFrame("tensors.shape", f"has {len(lengths)} dimensions; at most {MAX_DIMENSIONS} are allowed")
    size = int(data["size"]) if isinstance(data, Mapping) else len(data)
    if min(lengths, default=0) < 0 or math.prod(lengths) * each != size:
        raise InvalidFrame("tensors.shape", f"{lengths} of {dtype} does not fit {size} bytes of data")
    if lengths:
        parts += [long(len(lengths)), *map(long, lengths)]
    parts.append(_END)
    if isinstance(data, Mapping):
        if not data["bucket"] or not data["key"]:
            raise InvalidFrame("tensors.data", "is a claim without a bucket or without a key")
        sha256 = data["sha256"]
        if isinstance(sha256, str):
            sha256 = bytes.fromhex(sha256)
        if len(sha256) != 32:
            raise InvalidFrame("tensors.data", f"has a sha256 of {len(sha256)} bytes, not 32")
        parts += [long(1), text(data["bucket"]), text(data["key"]), long(size), bytes(sha256)]
    else:
        parts += [long(0), long(size), data]
    return parts


def tensor_of(name: str, seed_id: int, values: Any) -> list[bytes]:
    """Encode an array as a tensor of a seed."""
    given = array(values, "tensors")
    a = np.ascontiguousarray(given)
    if a.dtype.kind not in "fiub":
        raise InvalidFrame("tensors", f"{name} is of {a.dtype}, not of numbers")
    if a.dtype.byteorder == ">":
        a = a.astype(a.dtype.newbyteorder("<"))
    return tensor(name, seed_id, a.dtype.name, given.shape, a.tobytes())


def tensors_of(encoded: Sequence[Sequence[bytes]]) -> list[bytes]:
    """Return the array of the tensors that were encoded one by one."""
    if not encoded:
        return [_END]
    return [long(len(encoded)), *(part for one in encoded for part in one), _END]


def encode_frame(
    *,
    run_id: str,
    layer_id: str,
    producer_id: str,
    producer_epoch: int,
    sequence: int,
    observed_at: int,
    seed_ids: Any,
    states: Any,
    metrics: Any,
    step: int = 0,
    timeline: str = "",
    tensors: Iterable[Mapping[str, Any]] = (),
) -> bytes:
    """Encode a frame. The names are those of the schema, seed_metrics.v1.avsc.

    metrics is a mapping of names to values, or an iterable of {"name", "values"}.
    tensors has mappings with the schema's fields; data is bytes, or a claim as a
    mapping. Raises InvalidFrame for what ingest would refuse.
    """
    columns = list(metrics.items()) if isinstance(metrics, Mapping) else [(m["name"], m["values"]) for m in metrics]
    if len({name for name, _ in columns}) < len(columns):
        raise InvalidFrame("metrics.name", "is there twice")
    ids = seeds(seed_ids)
    tensors = list(tensors)
    among({t["seed_id"] for t in tensors}, ids)
    encoded = [tensor(t["name"], t["seed_id"], t["dtype"], t["shape"], t["data"]) for t in tensors]
    head = (
        text(identifier("run_id", run_id)) + text(identifier("layer_id", layer_id))
        + text(identifier("timeline", timeline, empty=True)) + text(identifier("producer_id", producer_id))
        + number("producer_epoch", producer_epoch)
    )
    return frame_of(head, sequence, observed_at, step, ints(ids), states_of(states, len(ids)),
                    [(metric_name(name), column(name, values, len(ids))) for name, values in columns], encoded)


def frame_of(head: bytes, sequence: int, observed_at: int, step: int, seed_ids: bytes, states: bytes,
             columns: Sequence[tuple[bytes, Column]], tensors: Sequence[Sequence[bytes]]) -> bytes:
    """Join what is encoded already: head is from run_id to producer_epoch."""
    count = len(states)
    size = long(count)
    parts: list[Any] = [FRAME_HEADER, head, number("sequence", sequence), moment("observed_at", observed_at), number("step", step), seed_ids, size, states]
    if len(columns) > MAX_METRICS:
        raise InvalidFrame("metrics", f"has {len(columns)} metrics; a frame has at most {MAX_METRICS}")
    if columns:
        parts.append(long(len(columns)))
        for name, values in columns:
            parts += (name, size, values, _END)
    parts.append(_END)
    parts += tensors_of(tensors)
    return b"".join(parts)


def encode_event(
    *,
    run_id: str,
    layer_id: str,
    seed_id: int,
    sequence: int,
    at: int,
    from_state: int,
    to_state: int,
    step: int = 0,
    reason: str = "",
    evidence: Mapping[str, float] | None = None,
    command_id: str = "",
    actor: str = "",
    node: str = "",
    session: int = 0,
    epoch: int = 0,
    journal_index: int = 0,
    blueprint_id: str = "",
    mark: str = "NORMAL",
    trigger_position: int = 0,
    trigger_index: int = 0,
    incarnation: int = 0,
    timeline: str = "",
    producer_id: str = "",
    producer_epoch: int = 0,
) -> bytes:
    """Encode an event. The names are those of the schema, seed_event.v2.avsc.

    Raises InvalidFrame for what ingest would refuse. The rules are those of
    SeedEvent.Validate in event.go; the conformance files have a case for each.
    """
    if mark not in _MARKS:
        raise InvalidFrame("mark", f"{shown(mark)} is none of {', '.join(_MARKS)}")
    parts = [
        EVENT_HEADER, text(identifier("run_id", run_id)), text(identifier("layer_id", layer_id)),
        number("seed_id", seed_id, below=2**31), number("sequence", sequence), moment("at", at), number("step", step),
        number("from_state", from_state, below=len(State)), number("to_state", to_state, below=len(State)), _reason(reason),
        *_evidence({} if evidence is None else evidence),
        *(text(identifier(field, s, empty=True)) for field, s in (("command_id", command_id), ("actor", actor), ("node", node))),
        number("session", session), number("epoch", epoch), number("journal_index", journal_index),
        text(identifier("blueprint_id", blueprint_id, empty=True)), long(_MARKS.index(mark)),
        number("trigger_position", trigger_position), number("trigger_index", trigger_index, below=2**31),
        number("incarnation", incarnation), text(identifier("timeline", timeline, empty=True)),
        text(identifier("producer_id", producer_id, empty=True)), number("producer_epoch", producer_epoch),
    ]
    return b"".join(parts)


def whole(field: str, n: Any) -> int:
    """Return n as an int, if it is an integer of any type."""
    try:
        return index(n)
    except Exception:  # usually a TypeError, but n may do anything when it is asked
        raise InvalidFrame(field, f"{shown(n)} is not an integer") from None


def number(field: str, n: Any, *, below: int = 2**63) -> bytes:
    """Encode an integer that counts from 0."""
    n = whole(field, n)
    if not 0 <= n < below:
        raise InvalidFrame(field, f"{shown(n)} is not from 0 to {below - 1}")
    return zigzag(n)


def moment(field: str, n: Any) -> bytes:
    """Encode a time in microseconds since the Unix epoch. The bounds find other units."""
    n = whole(field, n)
    if not _EARLIEST <= n < _LATEST:
        raise InvalidFrame(field, f"{shown(n)} is not a time from 2000 to 2199 in microseconds since the Unix epoch")
    return zigzag(n)


def _reason(reason: Any) -> bytes:
    if not isinstance(reason, str):
        raise InvalidFrame("reason", f"{shown(reason)} is not a string")
    try:
        encoded = text(reason)
    except UnicodeEncodeError as failure:
        raise InvalidFrame("reason", f"is not Unicode text: {failure.reason}") from None
    if (size := len(reason.encode())) > MAX_REASON:
        raise InvalidFrame("reason", f"has {size} bytes in UTF-8; at most {MAX_REASON} are allowed")
    return encoded


def _evidence(evidence: Mapping[str, Any]) -> list[bytes]:
    if not isinstance(evidence, Mapping):
        raise InvalidFrame("evidence", f"{type(evidence).__name__} is not a mapping of names to numbers")
    if len(evidence) > MAX_EVIDENCE:
        raise InvalidFrame("evidence", f"has {len(evidence)} entries; at most {MAX_EVIDENCE} are allowed")
    parts = [long(len(evidence))] if evidence else []
    for name, value in evidence.items():
        identifier("evidence", name)
        try:
            parts += (text(name), struct.pack("<d", value))
        except Exception:  # of struct, or of what the value does when it is asked: it is an array of several values, for example
            raise InvalidFrame("evidence", f"the value of {name} is not a number that a float holds") from None
    return [*parts, _END]
