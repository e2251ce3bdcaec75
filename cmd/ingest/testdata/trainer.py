"""A trainer that speaks Kafka: publishes frames to the raw topic with
confluent-kafka (librdkafka, with its own partitioner) and fastavro, and prints
what it has published as JSON."""

import json
import sys
import time
from pathlib import Path

from confluent_kafka import Producer

sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "examples" / "digits"))
from contract import SingleObject  # noqa: E402

brokers, topic = sys.argv[1:]
encode = SingleObject().encode
began = time.time_ns() // 1000
sequence = 0
published = {"frames": 0, "records": 0, "dead": 0}
producer = Producer(
    {"bootstrap.servers": brokers, "acks": "all", "enable.idempotence": True, "compression.type": "zstd", "linger.ms": 5}
)


def frame(layer, seeds):
    """Return the next frame of these seeds."""
    global sequence
    sequence += 1
    return {
        "run_id": "raw", "layer_id": layer, "timeline": "", "producer_id": "trainer", "producer_epoch": began,
        "sequence": sequence - 1, "observed_at": time.time_ns() // 1000, "step": sequence, "seed_ids": seeds,
        "states": bytes(2 for _ in seeds),
        "metrics": [{"name": "loss", "values": [seed / 8 for seed in seeds]}],
        "tensors": [],
    }  # fmt: skip


def as_json(f):
    """Return a frame as people write it."""
    return json.dumps({**f, "states": ["TRAINING" for _ in f["states"]]})


def publish(value, frames, **more):
    """Publish a record of so many frames; of none, it is a bad one."""

    def reported(error, _message):
        if error is not None:
            sys.exit(f"not delivered: {error}")

    published["records"] += 1
    published["frames"] += frames
    published["dead"] += frames == 0
    producer.produce(topic, value=value, on_delivery=reported, **more)
    producer.poll(0)


for step in range(50):
    layer = f"enc.{step % 3}"
    publish(encode(frame(layer, list(range(64)))), 1, key=layer)  # of many seeds
    for seed in range(4):
        publish(encode(frame(layer, [seed])), 1)  # of one, wherever the partitioner sends it
    publish(as_json(frame(layer, [0, 1])), 1, key=layer, headers={"traceparent": "00-" + 31 * "0" + "1-" + 15 * "0" + "2-01"})
publish(encode(frame("enc.0", [1])) + encode(frame("enc.1", [1])), 2)
publish("[" + as_json(frame("enc.0", [2])) + "," + as_json(frame("enc.1", [2])) + "]", 2)

whole = encode(frame("enc.0", [3]))
publish(b"\0\0\0\0\7" + whole[10:], 0)  # as a schema registry frames it
publish(whole[:-1], 0)
publish(as_json({**frame("enc.0", [3]), "run_id": "a b"}), 0)

if left := producer.flush(30):
    sys.exit(f"{left} records were not delivered")
print(json.dumps(published))
