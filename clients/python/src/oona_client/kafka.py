"""Publishes bodies to the raw topic of Kafka, with confluent-kafka."""

from __future__ import annotations

import importlib.util
import sys
import urllib.parse
from pathlib import Path
from typing import Any

from oona_client.post import Answer, Unreachable

TOPIC = "kasmina.telemetry.seed.raw"
GRACE = 5.0  # seconds beyond the timeout for the report of a delivery


def is_kafka(url: str) -> bool:
    return url.startswith("kafka:")


def address(url: str) -> tuple[str, str]:
    """Return the brokers and the topic of kafka://HOST:PORT,HOST:PORT/TOPIC."""
    parts = urllib.parse.urlsplit(url)
    if not parts.netloc or "@" in parts.netloc or parts.query or parts.fragment:
        raise ValueError(f"urls: {url.rpartition('@')[2]!r} is not an address of Kafka, such as kafka://broker-1:9092,broker-2:9092/{TOPIC}")
    return parts.netloc, parts.path.strip("/") or TOPIC


def packages() -> str:
    """Return the directory that has confluent-kafka, for a sender that does not look for packages."""
    found = importlib.util.find_spec("confluent_kafka")
    if found is None or found.origin is None:
        raise ImportError("a kafka: address needs the package confluent-kafka: pip install 'oona-client[kafka]'")
    return str(Path(found.origin).parents[1])


class KafkaPoster:
    """Publishes a body as a record, in the place of a Poster.

    All records of a client have the same key, and so they are in one partition, in
    their order. A record that was not acknowledged is published again: ingest takes
    each frame once, because of its identity.
    """

    def __init__(self, url: str, settings: dict[str, Any], directory: str, *, key: str, timeout: float) -> None:
        self.url = url
        brokers, self._topic = address(url)
        self._settings = {
            "client.id": "oona-client", "acks": "all", "enable.idempotence": True, "compression.type": "zstd", "linger.ms": 0,
            **settings,
            "bootstrap.servers": brokers, "message.timeout.ms": int(timeout * 1000),
        }
        self._directory = directory
        self._key = key.encode()
        self._timeout = timeout
        self._producer: Any = None

    def move_on(self) -> None:
        """Kafka's own client finds another broker."""

    def expire(self) -> None:
        """A record has a timeout of its own."""

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
            return Answer(404, {"detail": "the raw topic takes frames only"})
        if self._directory not in sys.path:
            sys.path.append(self._directory)
        from confluent_kafka import KafkaException

        reports: list[Any] = []
        try:
            producer = self._open()
            producer.produce(self._topic, value=body, key=self._key, on_delivery=lambda error, _: reports.append(error))
        except KafkaException as failure:
            return self._answer(failure.args[0])
        except BufferError as failure:
            raise Unreachable(str(failure)) from failure
        producer.flush(self._timeout + GRACE)
        if not reports:
            self.close()
            raise Unreachable(f"{self.url}: there is no report of the delivery")
        return Answer(200, {"accepted": 1}) if reports[0] is None else self._answer(reports[0])

    def _open(self) -> Any:
        from confluent_kafka import Producer

        if self._producer is None:
            self._producer = Producer(self._settings, logger=_silent())
        return self._producer

    def _answer(self, error: Any) -> Answer:
        """Return the answer for an error, or raise Unreachable."""
        from confluent_kafka import KafkaError as Kafka

        code, detail = error.code(), f"{self.url}: {error.str()}"
        if error.fatal():
            self._producer = None
        if code in (Kafka.MSG_SIZE_TOO_LARGE, Kafka.RECORD_LIST_TOO_LARGE):
            return Answer(413, {"detail": detail})
        if code in (Kafka._AUTHENTICATION, Kafka.SASL_AUTHENTICATION_FAILED, Kafka.TOPIC_AUTHORIZATION_FAILED, Kafka.CLUSTER_AUTHORIZATION_FAILED):
            return Answer(403, {"detail": detail})
        if code in (Kafka.UNKNOWN_TOPIC_OR_PART, Kafka._UNKNOWN_TOPIC, Kafka._INVALID_ARG):
            return Answer(404, {"detail": detail})
        raise Unreachable(detail)


def _silent() -> Any:
    """Return a logger that says nothing: what the client does not report matters to nobody."""
    import logging

    logger = logging.Logger("oona_client.kafka")
    logger.addHandler(logging.NullHandler())
    return logger
