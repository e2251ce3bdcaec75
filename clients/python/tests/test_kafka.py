"""Tests of the raw topic, on the brokers of OONA_KAFKA, or else on the broker of `oona demo`."""

import importlib.util
import json
import os
import re
import subprocess
import threading
import time
import uuid

import numpy as np
import pytest
from server import until

from oona_client import Client, InvalidFrame, State, kafka
from oona_client.kafka import TOPIC, address
from oona_client.post import Unreachable


OONA, INGEST, KAFKA = (os.environ.get(name, "") for name in ("OONA_BINARY", "OONA_INGEST_BINARY", "OONA_KAFKA"))
PACKAGE = importlib.util.find_spec("confluent_kafka") is not None
IDS = np.arange(200, dtype=np.int32)

package = pytest.mark.skipif(not PACKAGE, reason="SKIPPED: confluent-kafka is missing")
real = pytest.mark.skipif(not (OONA and INGEST and PACKAGE),
                          reason="SKIPPED: confluent-kafka, OONA_BINARY or OONA_INGEST_BINARY is missing; `make test-client` sets the latter two")


@pytest.mark.parametrize(("url", "brokers", "topic"), [
    ("kafka://a:9092", "a:9092", TOPIC),
    ("kafka://a:9092,b:9093/", "a:9092,b:9093", TOPIC),
    ("kafka://a:9092,b:9093/x.telemetry.seed.raw", "a:9092,b:9093", "x.telemetry.seed.raw"),
    ("KAFKA://[::1]:9092,b/_x-1/", "[::1]:9092,b", "_x-1"),
    ("kafka://a:65535/" + "x" * 249, "a:65535", "x" * 249),
])
def test_an_address_names_brokers_and_a_topic(url, brokers, topic):
    assert address(url) == (brokers, topic)


@pytest.mark.parametrize("topic", ["a/b", "/", "/a", "a//", "a b", " ", "a\n", "a?b", "a#b", "a:b", "a%20b", "\u00fc", ".", "..", "x" * 250])
def test_an_invalid_topic_is_refused(topic):
    with pytest.raises(ValueError, match=r"^urls: .*topic"):
        Client(f"kafka://a:9092/{topic}", "run")


@pytest.mark.parametrize("broker", ["", ",", "a,", ",a", "a:0", "a:65536", "a:x", "a:", ":9092", "a b", "a:1:2", "[::1", "::1", "\u2028", "user:secret@a"])
def test_an_invalid_broker_is_refused(broker):
    with pytest.raises(ValueError, match="^urls: ") as failure:
        Client(f"kafka://{broker}/{TOPIC}", "run")
    assert "secret" not in str(failure.value)


@pytest.mark.parametrize(("wrong", "named"), [
    ({"urls": ["kafka://a:9092", "http://b"]}, "urls"), ({"urls": "http://a", "kafka": {"security.protocol": "SSL"}}, "kafka"),
    *(({"urls": "kafka://a", name: value}, name) for name, value in (
        ("token", "secret"), ("token_file", __file__), ("ca_file", __file__), ("cert_file", __file__))),
])
def test_settings_that_do_not_fit_the_address_are_refused(wrong, named):
    with pytest.raises(ValueError, match=f"^{named}\\b") as failure:
        Client(**{"run": "run", **wrong})
    assert "secret" not in str(failure.value)


@package
@pytest.mark.parametrize("wrong", [
    {"no.such.setting": "secret"}, {"security.protocol": "secret"}, {"security.protocol": "SASL_SSL", "sasl.mechanism": "SCRAM-SHA-512"}, {"acks": 1},
    {"security.protocol": "SSL", "ssl.ca.location": "/no/such/file"}, {"linger.ms": "soon"}, {"error_cb": 5}, {"bootstrap.servers": "a"},
    {"message.timeout.ms": 5}, {"delivery.timeout.ms": 5}, {"transactional.id": "a"},
], ids=lambda wrong: next(iter(wrong)))
def test_settings_that_librdkafka_refuses_are_refused_at_once(wrong):
    with pytest.raises(ValueError, match="^kafka: "):
        Client("kafka://a", "run", sender="thread", kafka=wrong)


@package
def test_a_password_is_not_in_an_error():
    with pytest.raises(ValueError, match="^kafka: ") as failure:
        Client("kafka://a", "run", kafka={"sasl.password": "hidden", "hidden": "x"})  # librdkafka's error names the setting, and so the password
    assert "hidden" not in str(failure.value)


@package
def test_a_topic_that_no_ingest_reads_is_logged(caplog):
    for topic, warned in ((TOPIC, False), ("no.such.topic", True)):
        caplog.clear()
        Client(f"kafka://127.0.0.1:1/{topic}", "run", close_timeout=0.0, timeout=86400 * 365).close()
        assert any(topic in record.message and record.levelname == "WARNING" for record in caplog.records) == warned


@pytest.fixture
def mock():
    """A producer with librdkafka's mock of a Kafka cluster, and the address of the mock. The mock creates the topics that the producer writes to."""
    from confluent_kafka import Producer

    producer = Producer({"bootstrap.servers": "127.0.0.1:1", "test.mock.num.brokers": 1})
    (broker,) = producer.list_topics(timeout=60).brokers.values()
    yield producer, f"{broker.host}:{broker.port}"


@package
@pytest.mark.parametrize("sender", ["process", "thread"])
def test_frames_wait_until_their_topic_exists(mock, sender, caplog):
    producer, brokers = mock
    with Client(f"kafka://{brokers}/{TOPIC}", "run", sender=sender, strict=True, close_timeout=300) as oona:
        for step in range(5):
            oona.frame("enc.0", step, IDS, State.TRAINING, {"loss": np.zeros(200, np.float32)})
        until(lambda: any(record.levelname == "ERROR" and brokers in record.message and TOPIC in record.message for record in caplog.records))
        counts = oona.stats().frames
        assert (counts.handed, counts.waiting, counts.accepted) == (5, 5, 0)
        producer.produce(TOPIC, b"")
        assert producer.flush(60) == 0
        assert oona.flush(300)
        counts = oona.close().frames
    assert (counts.handed, counts.accepted, counts.rejected, counts.dropped, counts.lost) == (5, 5, 0, 0, 0)


@package
@pytest.mark.parametrize("sender", ["process", "thread"])
def test_the_log_says_that_kafka_does_not_answer(sender, caplog):
    with Client(f"kafka://127.0.0.1:1/{TOPIC}", "run", sender=sender, strict=True, close_timeout=0.0) as oona:
        oona.frame("enc.0", 0, IDS, State.TRAINING, {"loss": np.zeros(200, np.float32)})
        until(lambda: oona.stats().failures > 0)
        until(lambda: "Kafka does not answer" in caplog.text)
        assert oona.close().frames.lost == 1
    assert "127.0.0.1:1" in caplog.text and "ingest" not in caplog.text


class Returning:
    """A producer whose brokers are all down. If returns is true, one of them answers again after a while."""

    def __init__(self, poster, returns):
        self.poster, self.returns, self.looks, self.polls = poster, returns, 0, 0

    def produce(self, topic, on_delivery, **_):
        self.delivered = on_delivery

    def poll(self, _):
        from confluent_kafka import KafkaError

        self.polls += 1
        if self.polls == 2:
            self.poster._note(KafkaError(KafkaError._ALL_BROKERS_DOWN))
        if self.looks and self.returns:
            self.delivered(None, None)
        return 0

    def list_topics(self, topic, timeout):
        from confluent_kafka import KafkaError, KafkaException

        self.looks += 1
        if not self.returns:
            raise KafkaException(KafkaError(KafkaError._TRANSPORT))

    def purge(self):
        pass

    def flush(self, _):
        return 0


@package
@pytest.mark.parametrize("returns", [True, False])
def test_a_poster_keeps_waiting_if_a_broker_answers_again(monkeypatch, returns):
    monkeypatch.setattr(kafka, "PATIENCE", 0.02)
    poster = kafka.KafkaPoster(f"kafka://127.0.0.1:1/{TOPIC}", {}, os.path.dirname(kafka.__file__), key="run", timeout=10.0)
    poster._producer = producer = Returning(poster, returns)
    if returns:
        assert poster.post("/v1/frames", b"").status == 200
    else:
        with pytest.raises(Unreachable):
            poster.post("/v1/frames", b"")
    assert producer.looks == 1


def reads(process, pattern):
    """Read the output of a process until it matches a pattern, and return the match."""
    text = ""
    while not (found := re.search(pattern, text)):
        line = process.stdout.readline()
        assert line, text
        text += line
    threading.Thread(target=process.stdout.read, daemon=True).start()
    return found


@pytest.fixture(scope="module")
def installation():
    """The brokers and the topic prefix of an installation with an ingest that reads the raw topic."""
    running = []

    def start(*command):
        running.append(subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True))
        return running[-1]

    try:
        brokers, prefix = KAFKA, f"client-{uuid.uuid4().hex[:8]}"
        if not KAFKA:
            ports = [f"--{name}-port=0" for name in ("ingest", "admin", "tensors", "broker")]
            brokers = reads(start(OONA, "demo", "--synthetic=layers=1,seeds=1,rate=1", "--for=1h", *ports), r"broker +(\S+)")[1]
        subprocess.run([OONA, "topics", "apply", f"--brokers={brokers}", f"--prefix={prefix}", "--partitions=4"],
                       check=True, capture_output=True, text=True, timeout=300)
        reads(start(INGEST, "--raw", f"--brokers={brokers}", f"--prefix={prefix}", "--listen=127.0.0.1:0", "--admin-address=127.0.0.1:0",
                    "--instance=trial"), "ingest accepts frames")
        yield brokers, prefix
    finally:
        for process in running:
            process.terminate()
        for process in running:
            process.wait(300)


def on_bus(brokers, prefix, run, count):
    """Return the frames of a run on the bus, when there are at least that many."""
    end = time.monotonic() + 300
    while True:
        done = subprocess.run([OONA, "watch", f"{prefix}.telemetry.seed.metrics", f"--brokers={brokers}", f"--prefix={prefix}",
                               "--until=now", f"--run={run}", "--json"], check=True, capture_output=True, text=True, timeout=300)
        frames = [json.loads(line)["frame"] for line in done.stdout.splitlines()]
        if len(frames) >= count or time.monotonic() > end:
            return frames
        time.sleep(0.2)


@real
@pytest.mark.parametrize("sender", ["process", "thread"])
def test_frames_go_through_the_raw_topic(installation, sender):
    brokers, prefix = installation
    run = f"raw-{sender}"
    with Client(f"kafka://{brokers}/{prefix}.telemetry.seed.raw", run, sender=sender, strict=True, close_timeout=300) as oona:
        for step in range(300):
            oona.frame("enc.0", step, IDS, State.TRAINING, {"loss": np.full(200, step, np.float32)})
        assert oona.flush(300)
        with pytest.raises(InvalidFrame):
            oona.event("enc.0", 1, State.DORMANT, State.GERMINATED)
        with pytest.raises(InvalidFrame):
            oona.end()
        counts = oona.close().frames
    assert (counts.handed, counts.accepted) == (300, 300)
    frames = on_bus(brokers, prefix, run, 300)
    assert [f["step"] for f in frames] == list(range(300))
    assert frames[7]["metrics"][0]["values"] == [7] * 200


@real
def test_a_request_above_kafkas_limit_is_split(installation):
    brokers, prefix = installation
    with Client(f"kafka://{brokers}/{prefix}.telemetry.seed.raw", "raw-large", strict=True, linger=0.5) as oona:
        values = np.random.default_rng(1).random((20, 20_000), np.float32)
        for step in range(20):
            oona.frame("enc.0", step, np.arange(20_000), State.TRAINING, {"loss": values[step]})
        assert oona.flush(300)
    assert sorted(f["step"] for f in on_bus(brokers, prefix, "raw-large", 20)) == list(range(20))


@real
def test_frames_wait_in_the_spool_while_no_broker_answers(installation, tmp_path):
    brokers, prefix = installation
    with Client("kafka://127.0.0.1:1", "raw-spool", strict=True, spool=tmp_path, timeout=1.0, close_timeout=3.0) as oona:
        for step in range(5):
            oona.frame("enc.0", step, IDS, State.TRAINING, {"loss": np.zeros(200, np.float32)})
        until(lambda: oona.stats().frames.spooled == 5)
        counts = oona.close().frames
    assert (counts.accepted, counts.spooled) == (0, 5)
    with Client(f"kafka://{brokers}/{prefix}.telemetry.seed.raw", "raw-later", strict=True, spool=tmp_path) as oona:
        assert sorted(f["step"] for f in on_bus(brokers, prefix, "raw-spool", 5)) == list(range(5))
        assert oona.stats().recovered == 5
