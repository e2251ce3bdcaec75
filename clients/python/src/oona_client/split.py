"""Splits a frame by seed ids, for an ingest whose limits are lower than the client's.

It reads the encoding of frames.py, with the standard library only, because the sender
does not have NumPy.

The sequence number of a frame is a multiple of STRIDE, so that its parts get numbers
that no other frame has, and the same ones if it is split again: part i has the halves
2i+1 and 2i+2.
"""

from __future__ import annotations

STRIDE = 16


class _Reader:
    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 10  # after the header

    def long(self) -> int:
        n = shift = 0
        while True:
            byte = self.data[self.at]
            self.at += 1
            n |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return n >> 1 ^ -(n & 1)

    def take(self, n: int) -> bytes:
        self.at += n
        return self.data[self.at - n:self.at]

    def bytes(self) -> bytes:
        return self.take(self.long())

    def count(self) -> int:
        """Return how many items an array of one block has."""
        return self.long()

    def end(self) -> None:
        if self.long() != 0:
            raise ValueError("an array has more than one block")


def zigzag(n: int) -> bytes:
    """Encode an int or a long of at most 64 bits: zigzag, then seven bits a byte, the lowest first."""
    n = n << 1 ^ n >> 63
    if n < 0x80:
        return bytes((n,))
    out = bytearray()
    while n >= 0x80:
        out.append(n & 0x7F | 0x80)
        n >>= 7
    out.append(n)
    return bytes(out)


def _array(items: list[bytes]) -> bytes:
    return zigzag(len(items)) + b"".join(items) + b"\0" if items else b"\0"


def halves(frame: bytes) -> list[bytes]:
    """Split a frame into two. Return an empty list if it cannot be split."""
    r = _Reader(frame)
    for _ in range(4):  # run, layer, timeline, producer
        r.bytes()
    r.long()  # epoch
    head = frame[:r.at]
    sequence = r.long()
    node = sequence % STRIDE
    between = r.at
    r.long()  # observed_at
    r.long()  # step
    times = frame[between:r.at]
    ids: list[bytes] = []
    numbers: list[int] = []
    for _ in range(count := r.count()):
        start = r.at
        numbers.append(r.long())
        ids.append(frame[start:r.at])
    if count:
        r.end()
    if count < 2 or 2 * node + 2 >= STRIDE:
        return []
    states = r.bytes()
    metrics = _metrics(r, count)
    tensors = _tensors(r)
    half = count // 2
    first = set(numbers[:half])
    parts = []
    for i, rows in enumerate((slice(0, half), slice(half, count))):
        columns = [name + zigzag(rows.stop - rows.start) + values[4 * rows.start:4 * rows.stop] + b"\0" for name, values in metrics]
        own = [data for seed, data in tensors if (seed in first) == (i == 0)]
        parts.append(b"".join((
            head, zigzag(sequence - node + 2 * node + 1 + i), times, _array(ids[rows]),
            zigzag(rows.stop - rows.start), states[rows], _array(columns), _array(own),
        )))
    return parts


def _metrics(r: _Reader, count: int) -> list[tuple[bytes, bytes]]:
    """Return the encoded names and the values."""
    metrics = []
    if n := r.count():
        for _ in range(n):
            start = r.at
            r.bytes()
            name = r.data[start:r.at]
            r.long()
            metrics.append((name, r.take(4 * count)))
            r.end()
        r.end()
    return metrics


def _tensors(r: _Reader) -> list[tuple[int, bytes]]:
    """Return the seeds and the encoded tensors."""
    tensors = []
    if n := r.count():
        for _ in range(n):
            start = r.at
            r.bytes()  # name
            seed = r.long()
            r.bytes()  # dtype
            if dimensions := r.count():
                for _ in range(dimensions):
                    r.long()
                r.end()
            if r.long() == 0:
                r.bytes()
            else:  # a claim
                r.bytes()
                r.bytes()
                r.long()
                r.take(32)
            tensors.append((seed, r.data[start:r.at]))
        r.end()
    return tensors
