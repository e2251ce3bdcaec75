"""Encodes frames in Avro, in single-object encoding.

A column of metric values is the same in Avro as in memory, little-endian floats,
so a frame is mostly copied. Parts that repeat from frame to frame, such as the
seed ids, are encoded once.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from oona_client.wire import END, InvalidFrame, array, identifier, ints, long, moment, number, shown, text, within

FRAME_HEADER = bytes.fromhex("c301938f0ada0e672950")
"""The header of a SeedMetrics of version 1: the marker, and the schema's CRC-64-AVRO fingerprint in little-endian order."""

MAX_SEEDS = 65_536
MAX_METRICS = 64
MAX_DIMENSIONS = 64
ORDINALS = bytes(range(11))

_ELEMENT_BYTES = {
    "bool": 1, "int8": 1, "uint8": 1, "float16": 2, "bfloat16": 2, "int16": 2, "uint16": 2,
    "float32": 4, "int32": 4, "uint32": 4, "float64": 8, "int64": 8, "uint64": 8,
}

Column = np.ndarray[Any, np.dtype[np.float32]]


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
    """Return one ordinal for each seed."""
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
    """Return the values of a metric as contiguous little-endian floats, one for each seed."""
    if not (type(values) is np.ndarray and values.dtype == np.float32):
        values = array(values, "metrics", name)
        if values.dtype.kind not in "fiub":
            raise InvalidFrame(within("metrics", name), f"is of {values.dtype}, not of numbers")
    if values.shape != (count,):
        raise InvalidFrame(within("metrics", name), f"has the shape {values.shape}, and there are {count} seeds")
    if values.dtype == "<f4" and values.flags.c_contiguous:
        same: Column = values
        return same
    with np.errstate(over="ignore"):  # a value that is too large for a float becomes an infinity, which Oona counts
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
    parts.append(END)
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
        raise InvalidFrame("tensors", f"{shown(name)} is of {a.dtype}, not of numbers")
    if a.dtype.byteorder == ">":
        a = a.astype(a.dtype.newbyteorder("<"))
    return tensor(name, seed_id, a.dtype.name, given.shape, a.tobytes())


def tensors_of(encoded: Sequence[Sequence[bytes]]) -> list[bytes]:
    """Return the Avro array of tensors that are already encoded."""
    if not encoded:
        return [END]
    return [long(len(encoded)), *(part for one in encoded for part in one), END]


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
        raise InvalidFrame("metrics.name", "is given twice")
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
    """Encode a frame from encoded parts. head has the fields from run_id to producer_epoch."""
    count = len(states)
    size = long(count)
    parts: list[Any] = [FRAME_HEADER, head, number("sequence", sequence), moment("observed_at", observed_at), number("step", step), seed_ids, size, states]
    if len(columns) > MAX_METRICS:
        raise InvalidFrame("metrics", f"has {len(columns)} metrics; a frame has at most {MAX_METRICS}")
    if columns:
        parts.append(long(len(columns)))
        for name, values in columns:
            parts += (name, size, values, END)
    parts.append(END)
    parts += tensors_of(tensors)
    return b"".join(parts)
