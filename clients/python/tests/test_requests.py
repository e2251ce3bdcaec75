"""A running ingest against the conformance files: schemas/avro/conformance/requests.json.

OONA_INGEST_URL names an ingest, and OONA_INGEST_HAS what it has of the needs of the
cases, separated by commas. Without them, this starts `oona demo` with OONA_BINARY.
Needs nothing but the standard library.
"""

from __future__ import annotations

import http.client
import io
import json
import os
import re
import socket
import subprocess
import sys
import time
import unittest
import urllib.parse
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

FILES = Path(__file__).resolve().parents[3] / "schemas" / "avro" / "conformance"
URL, BINARY = os.environ.get("OONA_INGEST_URL", ""), os.environ.get("OONA_BINARY", "")
HAS = {need for need in os.environ.get("OONA_INGEST_HAS", "").split(",") if need}
NOW = re.compile(rb'"?<now([+-]\d+)?>"?')


def read(name: str) -> dict[str, Any]:
    content = json.loads((FILES / name).read_text(encoding="utf-8"))
    if content["version"] != 1:
        raise ValueError(f"{name} has version {content['version']}, and this test reads version 1")
    return content


class Parts:
    """Joins the parts of bodies."""

    def __init__(self) -> None:
        frames, events, ends = read("frames.json"), read("events.json"), read("ends.json")
        self.known = {
            "frame": {case["name"]: case["avro"] for case in frames["frames"]},
            "event": {case["name"]: case["avro"] for case in events["events"]},
            "end": {case["name"]: case["avro"] for case in ends["ends"]},
            "refused": {case["name"]: case["avro"] for case in frames["refused"]},
            "refused_event": {case["name"]: case["avro"] for case in events["refused"]},
            "refused_end": {case["name"]: case["avro"] for case in ends["refused"]},
            "body": {case["name"]: case["bytes"] for case in read("bodies.json")["bodies"]},
        }

    def join(self, parts: list[dict[str, Any]]) -> bytes:
        return with_now(b"".join(self.one(part) for part in parts))

    def one(self, part: dict[str, Any]) -> bytes:
        content = b""
        for kind, known in self.known.items():
            if kind in part:
                content = bytes.fromhex(known[part[kind]])
        content += part.get("text", "").encode() + bytes.fromhex(part.get("hex", ""))
        if "json" in part:
            content += json.dumps(part["json"]).encode()
        return content[part.get("from", 0):part.get("to", len(content))] * part.get("times", 1)


def with_now(text: bytes) -> bytes:
    return NOW.sub(lambda match: str(time.time_ns() // 1000 + int(match[1] or 0)).encode(), text)


def send(url: str, parts: Parts, request: dict[str, Any]) -> tuple[int, Any, bytes]:
    """Send a request, byte for byte, and return the answer."""
    address = urllib.parse.urlsplit(url)
    body = parts.join(request["body"])
    head = f"{request['method']} {request['path']} HTTP/1.1\r\nHost: {address.netloc}\r\n"
    for name, value in request["headers"].items():
        head += f"{name}: {with_now(value.encode()).decode()}\r\n"
    if "Transfer-Encoding" in request["headers"]:
        body = b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)
    else:
        head += f"Content-Length: {len(body)}\r\n"
    cut = request.get("send")
    with socket.create_connection((address.hostname, address.port), 30) as connection:
        try:
            connection.sendall(head.encode() + b"\r\n" + (body[:cut["bytes"]] if cut else body))
        except (BrokenPipeError, ConnectionResetError):
            pass  # the answer tells
        if cut and cut["then"] == "close":
            connection.shutdown(socket.SHUT_WR)
        response = http.client.HTTPResponse(connection, method=request["method"])
        response.begin()
        return response.status, response.headers, response.read()


def wrong(case: dict[str, Any], status: int, headers: Any, body: bytes) -> list[str]:
    """Return what is wrong with an answer."""
    answer, faults = case["answer"], []
    if status != answer["status"]:
        return [f"answer is {status} {body!r}, and not {answer['status']}"]
    for name, value in answer.get("headers", {}).items():
        if headers.get(name) is None or value not in ("*", headers[name]):
            faults.append(f"header {name} is {headers.get(name)!r}, and not {value!r}")
    got = json.load(io.BytesIO(body))
    expected = answer.get("json", {})
    if problem := answer.get("problem"):
        expected = {"frame": None, "event": None, "field": None, **problem, "type": "urn:oona:problem:" + problem["type"], "status": status}
        if headers["Content-Type"] != "application/problem+json":
            faults.append(f"the media type is {headers['Content-Type']}")
    if not has(got, expected):
        faults.append(f"the body is {body!r}, and does not have {expected!r}")
    return faults


def has(got: Any, expected: Any) -> bool:
    """Report whether a value has all members of another one."""
    if isinstance(expected, dict):
        return isinstance(got, dict) and all(has(got.get(name), value) for name, value in expected.items())
    if isinstance(expected, list):
        return isinstance(got, list) and len(got) == len(expected) and all(map(has, got, expected))
    return got == expected


@unittest.skipUnless(URL or BINARY, "neither OONA_INGEST_URL nor OONA_BINARY is set; `make test-client` sets the latter")
class Requests(unittest.TestCase):
    """Each request has the answer that the file says."""

    demo: Any = None

    @classmethod
    def setUpClass(cls) -> None:
        cls.url = URL
        if URL:
            return
        HAS.add("limits")
        ports = [f"--{name}-port=0" for name in ("ingest", "admin", "tensors", "broker")]
        cls.demo = subprocess.Popen([BINARY, "demo", "--synthetic=layers=1,seeds=1,rate=1", "--for=1h", *ports],
                                    stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        cls.addClassCleanup(cls.end)
        text = ""
        for line in cls.demo.stdout:
            text += line
            if found := re.search(r"ingest +(http://\S+)/v1/frames", line):
                cls.url = found[1]
                break
        else:
            raise RuntimeError(f"the demo does not say where it listens: {text}")

    @classmethod
    def end(cls) -> None:
        cls.demo.terminate()
        cls.demo.communicate(timeout=300)

    def test_requests(self) -> None:
        parts, cases = Parts(), read("requests.json")["requests"]
        able = [case for case in cases if HAS.issuperset(case.get("needs", []))]
        print(f"SKIPPED: {len(cases) - len(able)} requests that need an ingest with more than "
              f"{', '.join(sorted(HAS)) or 'its defaults'}", file=sys.stderr)

        def run(case: dict[str, Any]) -> list[str]:
            for request in case.get("before", []):
                status, _, body = send(self.url, parts, request)
                if status // 100 != 2:
                    return [f"a request before it is answered {status} {body!r}"]
            return wrong(case, *send(self.url, parts, case["request"]))

        with ThreadPoolExecutor(2) as pool:
            for case, faults in zip(able, pool.map(run, able)):
                with self.subTest(case["name"]):
                    self.assertEqual(faults, [])


if __name__ == "__main__":
    unittest.main()
