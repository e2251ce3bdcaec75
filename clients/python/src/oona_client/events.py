"""Encodes events and ends of runs in Avro, in single-object encoding."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Any

from oona_client.wire import END, InvalidFrame, Outcome, State, identifier, long, moment, number, shown, text

EVENT_HEADER = bytes.fromhex("c30130200c0808e9cbc4")
"""The header of a SeedEvent of version 2."""

RUN_END_HEADER = bytes.fromhex("c301be1664627b506295")
"""The header of a RunEnd of version 1."""

MAX_REASON = 1024  # bytes
MAX_EVIDENCE = 64

_MARKS = ("NORMAL", "ADOPTED", "REWOUND")


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
    if not isinstance(mark, str) or mark not in _MARKS:
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


def encode_end(
    *,
    run_id: str,
    at: int,
    outcome: Outcome | str,
    step: int = 0,
    reason: str = "",
    timeline: str = "",
    producer_id: str = "",
    producer_epoch: int = 0,
) -> bytes:
    """Encode the end of a run. The names are those of the schema, run_end.v1.avsc.

    Raises InvalidFrame for what ingest would refuse, by the rules of RunEnd.Validate in run_end.go.
    """
    return b"".join((
        RUN_END_HEADER, text(identifier("run_id", run_id)), moment("at", at), number("step", step), long(_outcome(outcome).value), _reason(reason),
        text(identifier("timeline", timeline, empty=True)), text(identifier("producer_id", producer_id, empty=True)),
        number("producer_epoch", producer_epoch),
    ))


def _outcome(outcome: Outcome | str) -> Outcome:
    """Return the outcome, which may be its name."""
    if isinstance(outcome, Outcome):
        return outcome
    if isinstance(outcome, str) and (name := str.upper(outcome)) in Outcome.__members__:
        return Outcome[name]
    raise InvalidFrame("outcome", f"{shown(outcome)} is none of {', '.join(Outcome.__members__)}")


def shortened(reason: Any) -> Any:
    """Return a reason that is not too long. The text of an exception may have any length, and parts that are not Unicode."""
    if not isinstance(reason, str):
        return reason  # encode_end() refuses it
    encoded = str.encode(reason, errors="replace")
    if len(encoded) > MAX_REASON:
        encoded = encoded[:MAX_REASON - 4] + b" ..."
    return encoded.decode(errors="ignore")  # a character may have been cut


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
        except Exception:  # from struct, or from a method of the value, which may be an array of several values
            raise InvalidFrame("evidence", f"the value of {shown(name)} is not a number that a float holds") from None
    return [*parts, END]
