"""Programs that speak through a schema registry with Confluent's own serializers.

confluent.py send BROKERS PREFIX REGISTRY INGEST
    publishes frames to the raw topic and posts some to ingest; prints what it has sent.
confluent.py guid BROKERS PREFIX REGISTRY
    publishes frames to the raw topic whose schema is in a header, as a GUID.
confluent.py later BROKERS PREFIX REGISTRY ID
    publishes one frame whose schema has that id, without asking the registry.
confluent.py compare BROKERS PREFIX REGISTRY TOPIC MIRROR
    reads both topics; each value that the deserializer makes of the second must be what
    fastavro makes of the first.
"""

import io
import json
import struct
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import fastavro
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.schema_registry import (
    Schema,
    SchemaRegistryClient,
    header_schema_id_serializer,
    record_subject_name_strategy,
)
from confluent_kafka.schema_registry.avro import AvroDeserializer, AvroSerializer
from confluent_kafka.serialization import MessageField, SerializationContext

SCHEMAS = Path(__file__).resolve().parents[3] / "schemas" / "avro"
PUBLISHED = (SCHEMAS / "seed_metrics.v1.avsc").read_text()
OF_A_TRAINER = json.dumps(
    {
        "type": "record", "name": "SeedMetrics", "namespace": "trainer",
        "fields": [
            {"name": "comment", "type": ["null", "string"], "default": None},
            {"name": "layer_id", "type": "string"},
            {"name": "run_id", "type": "string"},
            {"name": "producer_id", "type": "string"},
            {"name": "producer_epoch", "type": "long"},
            {"name": "sequence", "type": "int"},
            {"name": "observed_at", "type": {"type": "long", "logicalType": "timestamp-micros"}},
            {"name": "seed_ids", "type": {"type": "array", "items": "int"}},
            {"name": "states", "type": "bytes"},
        ],
    }
)  # fmt: skip
LATER = OF_A_TRAINER.replace('"comment"', '"remark"')
ELSE = json.dumps({"type": "record", "name": "Order", "fields": [{"name": "id", "type": "long"}]})
EPOCH = time.time_ns() // 1000


def frame(sequence, layer="enc.0"):
    return {
        "run_id": "trial", "layer_id": layer, "timeline": "", "producer_id": "confluent", "producer_epoch": EPOCH,
        "sequence": sequence, "observed_at": time.time_ns() // 1000, "step": sequence, "seed_ids": [0, 1, 2],
        "states": bytes([2, 2, 0]), "metrics": [{"name": "gradient_norm", "values": [0.5, 0.25, 4.0]}], "tensors": [],
    }  # fmt: skip


def single(value):
    """Return the single object of a frame, as a trainer without a registry would send it."""
    parsed = fastavro.parse_schema(json.loads(PUBLISHED))
    print_ = fastavro.schema.fingerprint(fastavro.schema.to_parsing_canonical_form(json.loads(PUBLISHED)), "CRC-64-AVRO")
    out = io.BytesIO(b"\xc3\x01" + bytes.fromhex(print_))
    out.seek(0, io.SEEK_END)
    fastavro.schemaless_writer(out, parsed, value)
    return out.getvalue()


def post(url, body):
    request = urllib.request.Request(url + "/v1/frames", data=body, headers={"Content-Type": "application/avro"})
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as refused:
        return refused.code, json.load(refused)


def send(brokers, prefix, registry, ingest):
    topic = prefix + ".telemetry.seed.raw"
    client = SchemaRegistryClient({"url": registry})
    context = SerializationContext(topic, MessageField.VALUE)
    latest = AvroSerializer(client, PUBLISHED, conf={"auto.register.schemas": False, "use.latest.version": True})
    own = AvroSerializer(client, OF_A_TRAINER, conf={"subject.name.strategy": record_subject_name_strategy})
    other = AvroSerializer(client, ELSE, conf={"subject.name.strategy": record_subject_name_strategy})
    producer = Producer({"bootstrap.servers": brokers, "acks": "all", "enable.idempotence": True})
    sent, sequence = [], 0

    def published(serialize, value, wanted):
        producer.produce(topic, serialize(value, context), key=value["layer_id"], partition=0)
        sent.append(single(wanted).hex())

    for _ in range(100):
        value = frame(sequence, f"enc.{sequence % 3}")
        published(latest, value, value)
        sequence += 1
    for _ in range(20):
        value = frame(sequence)
        value = {k: v for k, v in value.items() if k not in ("timeline", "step", "metrics", "tensors")} | {"comment": "hello"}
        published(own, value, value | {"timeline": "", "step": 0, "metrics": [], "tensors": []})
        sequence += 1
    producer.produce(topic, other({"id": 1}, context), partition=0)
    producer.produce(topic, struct.pack(">bi", 0, 987654) + b"nothing", partition=0)
    if producer.flush(30):
        sys.exit("records were not delivered")

    answers = []
    for _ in range(10):
        values = [frame(sequence + i) for i in range(3)]
        sequence += 3
        answers.append(post(ingest, b"".join(latest(v, context) for v in values)))
        sent.extend(single(v).hex() for v in values)
    late = frame(sequence)
    late["observed_at"] -= 60_000_000
    answers.append(post(ingest, latest(late, context)))
    sent.append(single(late).hex())
    refused = [post(ingest, struct.pack(">bi", 0, 987654) + b"nothing"), post(ingest, other({"id": 1}, context))]
    later = client.register_schema("trainer-later", Schema(LATER, "AVRO"))
    print(json.dumps({"sent": sent, "dead": 2, "answers": answers, "refused": refused, "later": later}))


def guid(brokers, prefix, registry):
    topic = prefix + ".telemetry.seed.raw"
    conf = {"auto.register.schemas": False, "use.latest.version": True, "schema.id.serializer": header_schema_id_serializer}
    serialize = AvroSerializer(SchemaRegistryClient({"url": registry}), PUBLISHED, conf=conf)
    producer = Producer({"bootstrap.servers": brokers, "acks": "all"})
    sent = []
    for sequence in range(10):
        value, headers = frame(sequence), []
        body = serialize(value, SerializationContext(topic, MessageField.VALUE, headers))
        producer.produce(topic, body, headers=headers)
        sent.append(single(value).hex())
    if producer.flush(30):
        sys.exit("records were not delivered")
    print(json.dumps({"sent": sent}))


def later(brokers, prefix, _registry, number):
    value = frame(1_000_000)
    value = {k: v for k, v in value.items() if k not in ("timeline", "step", "metrics", "tensors")} | {"remark": "later"}
    out = io.BytesIO()
    fastavro.schemaless_writer(out, fastavro.parse_schema(json.loads(LATER)), value)
    producer = Producer({"bootstrap.servers": brokers, "acks": "all"})
    producer.produce(prefix + ".telemetry.seed.raw", struct.pack(">bi", 0, int(number)) + out.getvalue(), partition=0)
    if producer.flush(30):
        sys.exit("the record was not delivered")
    print(json.dumps({"sent": [single(value | {"timeline": "", "step": 0, "metrics": [], "tensors": []}).hex()]}))


def records(brokers, topic):
    """Return all records of a topic by partition."""
    consumer = Consumer({"bootstrap.servers": brokers, "group.id": "compare", "enable.auto.commit": False})
    found = {}
    for number in consumer.list_topics(topic, 30).topics[topic].partitions:
        low, high = consumer.get_watermark_offsets(TopicPartition(topic, number), 30)
        consumer.assign([TopicPartition(topic, number, low)])
        found[number] = []
        while low < high:
            message = consumer.poll(30)
            if message is None or message.error():
                sys.exit(f"{topic}/{number} cannot be read: {message and message.error()}")
            found[number].append(message)
            low = message.offset() + 1
    consumer.close()
    return found


def compare(brokers, _prefix, registry, topic, mirror):
    schemas = {}
    for file in SCHEMAS.glob("*.avsc"):
        schema = json.loads(file.read_text())
        schemas[bytes.fromhex(fastavro.schema.fingerprint(fastavro.schema.to_parsing_canonical_form(schema), "CRC-64-AVRO"))] = fastavro.parse_schema(schema)
    deserialize = AvroDeserializer(SchemaRegistryClient({"url": registry}))
    context = SerializationContext(mirror, MessageField.VALUE)
    originals, copies = records(brokers, topic), records(brokers, mirror)
    compared = 0
    for number, messages in originals.items():
        if len(messages) != len(copies[number]):
            sys.exit(f"{topic}/{number} has {len(messages)} records, {mirror} has {len(copies[number])}")
        for original, copy in zip(messages, copies[number]):
            value = original.value()
            wanted = fastavro.schemaless_reader(io.BytesIO(value[10:]), schemas[value[2:10]])
            got = deserialize(copy.value(), context)
            place = f"{topic}/{number}/{original.offset()}".encode()
            headers = dict(copy.headers())
            if repr(got) != repr(wanted) or copy.key() != original.key() or headers.pop("oona-mirrored-from") != place or headers != dict(original.headers() or []):
                sys.exit(f"the copy of {place} is {got} with {copy.headers()}, not {wanted} with {original.headers()}")
            compared += 1
    print(json.dumps({"compared": compared}))


{"send": send, "guid": guid, "later": later, "compare": compare}[sys.argv[1]](*sys.argv[2:])
