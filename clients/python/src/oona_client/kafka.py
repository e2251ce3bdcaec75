"""Publishes bodies to the raw topic of Kafka, with confluent-kafka."""

from __future__ import annotations

import importlib.util
import re
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from oona_client.post import Answer, Unreachable

RAW = ".telemetry.seed.raw"  # the end of the name of a raw topic
TOPIC = "kasmina" + RAW  # used if the address has no topic
LONGEST = 2**31 - 1  # the longest time in librdkafka's settings, in milliseconds
GRACE = 5.0  # seconds to wait for the report of a delivery after its timeout
PATIENCE = 1.0  # seconds to wait for brokers that are down and for topics that do not exist


_ADDRESS = re.compile(r"(?i:kafka)://([^/?#@]+)(?:/(.*))?", re.DOTALL)
_BROKER = re.compile(r"(?:\[[0-9A-Za-z:.%]+\]|[^\s:\[\]]+)(?::([0-9]{1,5}))?")
_NAME = re.compile(r"[A-Za-z0-9._-]{1,249}")
_OURS = {  # settings of librdkafka, with all their names, that are set by arguments of Client
    "bootstrap.servers": "urls", "metadata.broker.list": "urls", "message.timeout.ms": "timeout", "delivery.timeout.ms": "timeout",
}


def is_kafka(url: str) -> bool:
    return url[:6].lower() == "kafka:"


def address(url: str) -> tuple[str, str]:
    """Return the brokers and the topic of kafka://HOST:PORT,HOST:PORT/TOPIC. The default topic is TOPIC."""
    found = _ADDRESS.fullmatch(url)
    if "@" in url:  # the text before it may be a password, so the message does not show it
        raise ValueError("urls: an address of Kafka has no credentials; set sasl.username and sasl.password in kafka")
    if found is None:
        raise ValueError(f"urls: {url[:100]!r} is not an address of Kafka, such as kafka://broker-1:9092,broker-2:9092/{TOPIC}")
    brokers, topic = found[1], found[2] or TOPIC
    for broker in brokers.split(","):
        host = _BROKER.fullmatch(broker)
        if host is None or not broker.isprintable() or host[1] and not 0 < int(host[1]) <= 65535:
            raise ValueError(f"urls: {broker[:100]!r} is not a broker of Kafka: a host, and a port from 1 to 65535, such as broker-1:9092")
    topic = topic.removesuffix("/")
    if not _NAME.fullmatch(topic) or topic in (".", ".."):
        raise ValueError(f"urls: {topic[:100]!r}{'...' if len(topic) > 100 else ''} cannot be the name of a topic of Kafka, which is 1 to 249 ASCII letters, "
                         f"digits and . _ - and neither . nor ..; an address without a topic is for {TOPIC}")
    return brokers, topic


def packages() -> str:
    """Return the directory that has confluent-kafka, because the sender does not search for packages."""
    found = importlib.util.find_spec("confluent_kafka")
    if found is None or found.origin is None:
        raise ImportError("a kafka: address needs the package confluent-kafka: pip install 'oona-client[kafka]'")
    return str(Path(found.origin).parents[1])


def _settings(url: str, given: Mapping[str, Any], timeout: float) -> dict[str, Any]:
    """Return the settings of librdkafka."""
    brokers, _ = address(url)
    return {
        "client.id": "oona-client", "acks": "all", "enable.idempotence": True, "compression.type": "zstd", "linger.ms": 0,
        # If a broker created a topic with a wrong name, it would accept the frames, and nobody would read them.
        "allow.auto.create.topics": False, "topic.metadata.propagation.max.ms": int(PATIENCE * 1000),
        **given,
        "bootstrap.servers": brokers, "message.timeout.ms": min(int(timeout * 1000), LONGEST),
    }


def check(url: str, given: Mapping[str, Any], timeout: float) -> None:
    """Raise ValueError if librdkafka refuses the settings. The message does not show values, because some are passwords."""
    for name, argument in _OURS.items():
        if name in given:
            raise ValueError(f"kafka: {name} is given by the argument {argument}; leave it out of kafka")
    if "transactional.id" in given:
        raise ValueError("kafka: leave out transactional.id, as ingest does not wait for the end of a transaction")
    from confluent_kafka import KafkaException, Producer

    settings = _settings(url, given, timeout)
    del settings["bootstrap.servers"]  # without it, nothing is connected
    if any(str(value).upper() == "OAUTHBEARER" for value in given.values()):
        return  # librdkafka would already ask for a token
    try:
        Producer(settings, logger=_silent())
    except KafkaException as failure:
        what = failure.args[0].str()
    except Exception as failure:  # the package raises if a callback is not callable
        what = str(failure)
    else:
        return
    for name, value in given.items():
        if isinstance(value, str) and value and ("password" in name or "secret" in name):
            what = what.replace(value, "...")
    raise ValueError(f"kafka: {what}")


class KafkaPoster:
    """Publishes a body as a record, instead of a Poster.

    All records of a client have the same key, so they are in one partition, in order.
    A record that was not acknowledged is published again. Its frames are folded once,
    because they have identities.
    """

    peer = "Kafka"

    def __init__(self, url: str, settings: dict[str, Any], directory: str, *, key: str, timeout: float) -> None:
        self.url = url
        self._brokers, self._topic = address(url)
        self._settings = {**_settings(url, settings, timeout), "error_cb": self._note}
        self._also = settings.get("error_cb")  # the callback of the program
        self._trouble: Any = None  # the last error of a connection
        self._down = float("inf")  # since when all brokers are down
        self._broken: Any = None  # the error after which the producer cannot be used
        self._directory = directory
        self._key = key.encode()
        self._timeout = timeout
        self._producer: Any = None

    def move_on(self) -> None:
        """Do nothing, because librdkafka finds another broker itself."""

    def expire(self) -> None:
        """Do nothing, because librdkafka has a timeout for each record."""

    def close(self) -> None:
        if self._producer is not None:
            self._producer.purge()
            self._producer.flush(1.0)
            self._producer = None

    def post(self, path: str, body: bytes, coding: str = "", media_type: str = "") -> Answer:
        """Publish the body, and return what an ingest would answer.

        Raises Unreachable if it was not acknowledged.
        """
        if path != "/v1/frames":
            return Answer(404, {"detail": f"the raw topic {self._topic} takes frames only"}, error="not frames",
                          advice="Send events with a client that has an address of ingest")
        if self._directory not in sys.path:
            sys.path.append(self._directory)
        from confluent_kafka import KafkaException

        reports: list[Any] = []
        try:
            producer = self._open()
            producer.poll(0)  # take the errors since the last record, which do not count
            self._trouble, self._down = None, float("inf")
            producer.produce(self._topic, value=body, key=self._key, on_delivery=lambda error, _: reports.append(error))
        except KafkaException as failure:
            return self._answer(failure.args[0])
        except BufferError as failure:
            raise Unreachable(f"nothing can be sent to {self.url}: {failure}") from failure
        end = time.monotonic() + self._timeout + GRACE
        while not reports and self._broken is None and (now := time.monotonic()) < end:
            if now - self._down >= PATIENCE and not self._answers(producer):
                break
            producer.poll(0.1)
        if reports and reports[0] is None:
            return Answer(200, acknowledged=True)
        error = self._broken or (reports[0] if reports else self._trouble)
        if not reports or error.fatal():
            self.close()
        return self._answer(error)

    def _answers(self, producer: Any) -> bool:
        """Report whether a broker answers again, because librdkafka does not report that."""
        from confluent_kafka import KafkaException

        try:
            producer.list_topics(self._topic, timeout=PATIENCE)
        except KafkaException:
            return False
        self._down = float("inf")
        return True

    def _open(self) -> Any:
        from confluent_kafka import Producer

        if self._producer is None:
            self._broken = None
            self._producer = Producer(self._settings, logger=_silent())
        return self._producer

    def _note(self, error: Any) -> None:
        """Note an error that librdkafka reports: one of a connection, which it retries, or one of the producer."""
        if error.fatal():
            self._broken = error
        elif error.code() == error._ALL_BROKERS_DOWN:
            self._down = min(self._down, time.monotonic())
            self._trouble = self._trouble or error  # the error of a connection is more specific
        else:
            self._trouble = error
        if self._also is not None:
            self._also(error)

    def _answer(self, error: Any) -> Answer:
        """Return the answer for an error, or raise Unreachable. The error is None if there is no report of the delivery."""
        from confluent_kafka import KafkaError as Kafka

        waited = f"the record was not acknowledged within {self._timeout:g} s"
        if error is not None and error.code() == Kafka._MSG_TIMED_OUT:  # the error of the connection, if there is one, is the cause
            error = self._trouble
        elif error is not None and error.code() < 0:
            waited = ""
        if error is None:
            raise Unreachable(f"Kafka does not answer: {self.url}: {waited}")
        code, name, detail = error.code(), error.name().lstrip("_"), f"{self.url}: {error.str()}"
        if code in (Kafka.MSG_SIZE_TOO_LARGE, Kafka.RECORD_LIST_TOO_LARGE):
            return Answer(413, {"detail": detail}, error=name)
        if code in (Kafka._AUTHENTICATION, Kafka.SASL_AUTHENTICATION_FAILED):
            return Answer(403, {"detail": detail}, error=name, advice="Check the settings sasl. of kafka")
        if code in (Kafka.TOPIC_AUTHORIZATION_FAILED, Kafka.CLUSTER_AUTHORIZATION_FAILED):
            return Answer(403, {"detail": detail}, error=name, advice=f"Check that the ACLs allow this user to write to the topic {self._topic}")
        if code in (Kafka.UNKNOWN_TOPIC_OR_PART, Kafka._UNKNOWN_TOPIC):
            self.close()  # a new producer finds the topic as soon as it exists
            return Answer(404, {"detail": f"the brokers {self._brokers} have no topic {self._topic}"}, error=name,
                          advice="Create it with `oona topics apply`, or correct the topic in urls")
        if code == Kafka._INVALID_ARG:
            return Answer(404, {"detail": detail}, error=name, advice="Correct the settings in kafka")
        if code > 0:  # the broker has answered
            return Answer(503, {"detail": detail}, error=name)
        raise Unreachable(f"Kafka does not answer: {detail}{'; ' if waited else ''}{waited}")


def _silent() -> Any:
    """Return a logger that discards messages, because the client reports everything that matters itself."""
    import logging

    logger = logging.Logger("oona_client.kafka")
    logger.addHandler(logging.NullHandler())
    return logger
