"""The settings of a client. The constructor raises if one is not valid, and names the argument."""

from __future__ import annotations

import math
import numbers
import os
import re
import socket
from collections.abc import Iterable, Mapping
from operator import index
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from oona_client import coding, wire
from oona_client.kafka import address, check, is_kafka, packages
from oona_client.post import check_token, context
from oona_client.sender import PATHS, Config
from oona_client.wire import InvalidFrame, InvalidSetting, InvalidType, shown

YEAR = 86400.0 * 365
_EXAMPLE = "an address of ingest, such as http://127.0.0.1:8080"
_FOR_HTTP = {  # settings that a kafka: address does not have, and those to use instead
    "token": "sasl.username and sasl.password", "token_file": "sasl.username and sasl.password", "ca_file": "ssl.ca.location",
    "cert_file": "ssl.certificate.location", "key_file": "ssl.key.location",
}


def config(
    urls: Any, producer: str, *, token: Any, token_file: Any, ca_file: Any, cert_file: Any, key_file: Any, queue_bytes: Any,
    queue_frames: Any, overflow: Any, spool: Any, spool_bytes: Any, linger: Any, timeout: Any, compress: Any, sender: Any, kafka: Any,
) -> Config:
    """Return the configuration of the sender."""
    addresses = _addresses(urls)
    found = Config(
        urls=addresses,
        token=_token(token),
        token_file=_file("token_file", token_file),
        ca_file=_file("ca_file", ca_file),
        cert_file=_file("cert_file", cert_file),
        key_file=_file("key_file", key_file),
        compress=flag("compress", compress),
        linger=seconds("linger", linger),
        timeout=seconds("timeout", timeout, lowest=0.001),
        queue_bytes=whole("queue_bytes", queue_bytes),
        queue_frames=whole("queue_frames", queue_frames),
        oldest=choice("overflow", overflow, "oldest", "newest") == "oldest",
        spool_bytes=whole("spool_bytes", spool_bytes),
        spool=_spool(spool),
    )
    if found.key_file and not found.cert_file:
        raise ValueError("key_file is the key of a certificate; give that as cert_file")
    if any(url.startswith("https:") for url in addresses):
        context(found.ca_file, found.cert_file, found.key_file)  # raises if a file has the wrong content
    settings = _kafka(kafka, sender)
    if is_kafka(addresses[0]):
        for name, instead in _FOR_HTTP.items():
            if getattr(found, name):
                raise ValueError(f"{name} is for addresses of ingest only; for a kafka: address, set {instead} in kafka")
        found.kafka, found.packages, found.key = settings, packages(), producer
        check(addresses[0], settings, found.timeout)
    elif settings:
        raise ValueError("kafka can only be set with an address kafka://BROKERS")
    elif found.compress:
        found.zstd = coding.directory()
    return found


def _addresses(urls: Any) -> list[str]:
    if isinstance(urls, str):
        urls = [urls]
    elif isinstance(urls, (bytes, bytearray, Mapping)) or not isinstance(urls, Iterable):
        raise TypeError(f"urls is {shown(urls)}; it must be {_EXAMPLE}, or a list of them")
    found = [_address(url) for url in urls]
    if not found:
        raise ValueError(f"urls is empty; give {_EXAMPLE}")
    if len(found) > 1 and any(map(is_kafka, found)):
        raise ValueError("urls has a kafka: address and another one; give several brokers as kafka://HOST:PORT,HOST:PORT")
    return found


def _address(url: Any) -> str:
    """Return the address, with its scheme in lower case and without the path of a request."""
    if not isinstance(url, str):
        raise TypeError(f"urls has {shown(url)}; it must be {_EXAMPLE}, or a list of them")
    if is_kafka(url):
        return "kafka://{}/{}".format(*address(url))
    text: str = url.strip(" \t\r\n")
    try:
        parts = urlsplit(text)
        valid = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # for example because of the port
        valid = False
    if not valid:
        raise ValueError(f"urls: {shown(text.rpartition('@')[2])} is not {_EXAMPLE}: http or https, a host, and a port up to 65535")
    if parts.username or parts.password:
        raise ValueError("urls: give credentials as token, not in the address")
    if parts.query or parts.fragment:
        raise ValueError(f"urls: the address of {parts.hostname} has a query or a fragment, which no request would have; leave out what follows the path")
    if not text.isprintable() or " " in text:
        raise ValueError(f"urls: {shown(text)} has a space or a character that cannot be printed")
    if not parts.path.isascii():
        raise ValueError(f"urls: the path of {shown(text)} has characters that are not ASCII; percent-encode them")
    return parts._replace(path=_prefix(parts.path)).geturl()


def _prefix(path: str) -> str:
    """Return a path without the path of a request at its end, which addresses printed by `oona demo` have."""
    path = path.rstrip("/")
    for known in PATHS:
        path = path.removesuffix(known)
    return path.rstrip("/")


def _token(token: Any) -> str:
    if not isinstance(token, str):  # the message does not show it, because it may be a secret
        raise TypeError(f"token is of the type {type(token).__name__}; it must be a string")
    return check_token(token.strip(), "token")


def _path(name: str, path: Any) -> str:
    found: object = os.fspath(path) if isinstance(path, (str, os.PathLike)) else None
    if not isinstance(found, str):
        raise TypeError(f"{name} is {shown(path)}; it must be a path: a string, or of pathlib")
    if "\0" in found:
        raise ValueError(f"{name} is {shown(found)}, which has a null character; it must be a path")
    return found


def _file(name: str, path: Any) -> str:
    """Return the path of a file after checking that it can be read."""
    found = _path(name, path)
    if found:
        try:
            with open(found, "rb"):
                pass
        except OSError as failure:
            raise OSError(failure.errno, f"{name} cannot be read: {failure.strerror}", found) from failure
    return found


def _spool(path: Any) -> str:
    """Make the directory of the spool."""
    path = _path("spool", path)
    if not path:
        return ""
    try:
        Path(path).mkdir(parents=True, exist_ok=True)
    except OSError as failure:
        raise OSError(failure.errno, f"spool cannot be a directory there: {failure.strerror}", path) from failure
    if not os.access(path, os.W_OK | os.X_OK):
        raise PermissionError(f"the spool {path} is not writable; use another directory, or correct its owner or mode")
    return str(Path(path).absolute())


def _kafka(settings: Any, sender: Any) -> dict[str, Any]:
    """Return settings of librdkafka. A process gets them as JSON. Messages do not show values, because some are passwords."""
    if settings is None:
        return {}
    if not isinstance(settings, Mapping):
        raise TypeError(f"kafka is of the type {type(settings).__name__}; it must be a mapping of names to values, "
                        "such as {'security.protocol': 'SSL'}")
    for name, value in settings.items():
        if not isinstance(name, str):
            raise TypeError(f"kafka: the name {shown(name)} is not a string")
        if sender != "thread" and not isinstance(value, (str, int, float)):
            raise TypeError(f"kafka: the value of {name} is of the type {type(value).__name__}; for a sender that is a process it must be "
                            "a string, a number, True or False; others need sender='thread'")
    return dict(settings)


def identifier(name: str, value: Any, *, empty: bool = False) -> str:
    """Return an id."""
    try:
        return wire.identifier(name, value, empty=empty)
    except InvalidFrame as failure:
        kind = InvalidSetting if isinstance(value, str) else InvalidType
        raise kind(name, failure.reason) from None


def choice(name: str, value: Any, *choices: str) -> str:
    """Return one of several words."""
    if not isinstance(value, str):
        raise TypeError(f"{name} is {shown(value)}; it must be one of {', '.join(choices)}")
    if value not in choices:
        raise ValueError(f"{name} is {shown(value)}; it must be one of {', '.join(choices)}")
    return value


def flag(name: str, value: Any) -> bool:
    if not isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{name} is {shown(value)}; it must be True or False")
    return bool(value)


def whole(name: str, value: Any) -> int:
    """Return a whole number from 1 on."""
    try:
        n = None if isinstance(value, bool) else index(value)
    except TypeError:
        n = None
    if n is None:
        raise TypeError(f"{name} is {shown(value)}; it must be a whole number")
    if not 1 <= n <= 1 << 62:
        raise ValueError(f"{name} is {shown(n)}; it must be from 1 to {1 << 62}")
    return n


def seconds(name: str, value: Any, *, lowest: float = 0.0) -> float:
    """Return a setting in seconds."""
    n = _number(name, value)
    if not lowest <= n <= YEAR:
        raise ValueError(f"{name} is {shown(value)}; it must be at least {lowest:g} seconds, and at most a year")
    return n


def limit(timeout: Any) -> float:
    """Return how many seconds a call may take. A negative number counts as 0, and infinity as a year."""
    n = _number("timeout", timeout)
    if math.isnan(n):
        raise ValueError("timeout is not a number of seconds, but NaN")
    return min(max(n, 0.0), YEAR)


def _number(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"{name} is {shown(value)}; it must be a number of seconds")
    try:
        return float(value)
    except OverflowError:
        return math.inf


def default_producer() -> str:
    """Return a name for this process: the host, and the rank or the process id."""
    rank = os.environ.get("RANK") or os.environ.get("SLURM_PROCID") or ""
    name = socket.gethostname() + (f".{rank}" if rank else f".{os.getpid()}")
    return re.sub(r"[^A-Za-z0-9._:-]", "-", name)[:128]
