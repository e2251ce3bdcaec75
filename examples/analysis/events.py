"""Puts the lifecycle events of testdata/digits.avro on a topic, for a run that `oona demo` has played.

The demo sends these events, too. Here, each event gets a blueprint if --blueprint says which:
the recorded trainer has one kind of seed, and names none.
"""

from __future__ import annotations

import argparse
import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import confluent_kafka
import fastavro
from confluent_kafka.admin import AdminClient, NewTopic
from fastavro.schema import fingerprint, to_parsing_canonical_form

ROOT = Path(__file__).resolve().parents[2]
TOPIC = "kasmina.events.seed.changed"
EVENT = "kasmina.events.SeedEvent"


def recorded() -> Iterator[dict]:
    """Yield the events of the recording, in their order."""
    with (ROOT / "testdata" / "digits.avro").open("rb") as file:
        for name, record in fastavro.reader(file, return_record_name=True):
            if name == EVENT:
                yield record


def publish(brokers: str, run: str, blueprint: Callable[[dict], str]) -> int:
    """Write the events to the topic, and return their number."""
    schema = json.loads((ROOT / "schemas" / "avro" / "seed_event.v2.avsc").read_text())
    mark = b"\xc3\x01" + bytes.fromhex(fingerprint(to_parsing_canonical_form(schema), "CRC-64-AVRO"))
    parsed = fastavro.parse_schema(schema)

    admin = AdminClient({"bootstrap.servers": brokers})
    for created in admin.create_topics([NewTopic(TOPIC, 1, 1)]).values():
        created.result()
    failed, events = [], 0
    producer = confluent_kafka.Producer({"bootstrap.servers": brokers})
    for event in recorded():
        value = io.BytesIO(mark)
        value.seek(0, io.SEEK_END)
        fastavro.schemaless_writer(value, parsed, event | {"run_id": run, "blueprint_id": blueprint(event)})
        producer.produce(TOPIC, value.getvalue(), on_delivery=lambda error, _: error and failed.append(error))
        events += 1
    if producer.flush(30) or failed:
        raise RuntimeError(f"{TOPIC} did not take all events: {failed[:1] or 'no answer'}")
    return events


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", metavar="RUN", help="the run that the events are for")
    parser.add_argument("--brokers", default="127.0.0.1:9092")
    parser.add_argument("--blueprint", action="append", default=[], metavar="LAYER=NAME", help="the blueprint of a layer's seeds")
    args = parser.parse_args()
    blueprints = dict(each.split("=", 1) for each in args.blueprint)
    events = publish(args.brokers, args.run, lambda event: blueprints.get(event["layer_id"], ""))
    print(f"{events} events of {args.run} are on {TOPIC}")


if __name__ == "__main__":
    main()
