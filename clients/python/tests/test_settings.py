"""Settings that cannot be right raise when the client is made, and name the argument."""

import os
import pathlib

import numpy as np
import pytest
from server import Server, until
from training import client, send

from oona_client import Client, InvalidFrame

URL = "http://127.0.0.1:1"
NOT_A_FILE = pathlib.Path(__file__).parent

WRONG = [
    *(("urls", value) for value in (
        b"", b"http://127.0.0.1:1", None, 5, 1.5, {}, {"a": 1}, object(), [], [b"http://127.0.0.1:1"], [None], [URL, 5], pathlib.Path("x"), [URL, ""], "",
        "127.0.0.1:8080", "ftp://x", "http://", "http:///x", "http://u:p@x", "http://x:0", "http://x:65536", "http://x:y", "http://[::1", "http://x/?a=1", "http://x/#a", "http://x y",
        "http://x/a b", "http://x/a\nb", "http://x\u2028", "http://x/\u00fc", "kafka:",
        ["kafka://a:9092", URL])),
    *(("run", value) for value in (b"run", None, 5, "", "a b", [], {}, "\u00fc", "x" * 129)),
    *((name, value) for name in ("producer", "timeline") for value in (b"", b"me", None, 0, [], "a b", object())),
    *(("token", value) for value in (b"", b"a", None, 5, [], "a b", "\u00e9", "a\nb")),
    *((name, value) for name in ("token_file", "ca_file", "cert_file", "key_file", "spool") for value in (b"", b"x", None, 5, [], object(), "a\0b")),
    *((name, value) for name in ("token_file", "ca_file", "cert_file", "key_file") for value in ("/no/such/file", NOT_A_FILE)),
    ("ca_file", __file__), ("cert_file", __file__), ("key_file", __file__), ("spool", __file__), ("spool", pathlib.Path(__file__) / "x"),
    *((name, value) for name in ("queue_bytes", "queue_frames", "spool_bytes") for value in (
        "64MB", b"1", None, 1.5, 1.0, True, [], np.float32(5), 0, -1, 1 << 63, 10**5000, float("nan"))),
    *((name, value) for name in ("linger", "timeout", "close_timeout") for value in (
        "0", b"1", "", None, True, [], 1j, object(), -1, float("nan"), float("inf"), 10**400, 86400 * 366)),
    ("timeout", 0), ("timeout", 0.0009),
    *(("overflow", value) for value in ("all", "", b"oldest", None, 5, [], np.array(["oldest", "newest"]))),
    *(("sender", value) for value in ("x", "", b"auto", None, 5, ["auto"])),
    *((name, value) for name in ("compress", "strict") for value in ("no", "", b"", None, 0, 1, 1.0, [])),
    *(("kafka", value) for value in ([], "x", 5, [("a", 1)], {5: "x"}, {b"a": "x"}, {"a": None}, {"oauth_cb": print}, {"a": b"x"},
                                     {"security.protocol": "SSL"})),
]


@pytest.mark.parametrize(("name", "value"), WRONG, ids=lambda value: value if isinstance(value, str) and value.isidentifier() else type(value).__name__)
def test_an_argument_that_cannot_be_right_is_named(name, value):
    descriptors = open_descriptors()
    with pytest.raises((TypeError, ValueError, OSError)) as caught:
        Client(**{"urls": "https://localhost:1", "run": "run", name: value})
    assert name in str(caught.value)
    assert len(str(caught.value)) < 500
    assert open_descriptors() == descriptors


def open_descriptors():
    return len(os.listdir("/proc/self/fd")) if os.path.exists("/proc/self/fd") else 0


@pytest.mark.parametrize("name", ["run", "producer", "timeline"])
def test_an_id_that_is_none_is_a_wrong_argument_and_not_only_a_frame(name):
    for value, expected in (("x y", ValueError), (5, TypeError)):
        with pytest.raises(expected) as caught:
            Client(**{"urls": URL, "run": "run", name: value})
        assert isinstance(caught.value, ValueError) and isinstance(caught.value, InvalidFrame)  # which it was before
        assert type(caught.value) is not InvalidFrame and caught.value.field == name


def test_an_error_of_a_file_is_one_of_the_system():
    with pytest.raises(FileNotFoundError) as caught:
        Client(URL, "run", token_file="/no/such/file")
    assert caught.value.filename == "/no/such/file"
    with pytest.raises(IsADirectoryError):
        Client(URL, "run", ca_file=NOT_A_FILE)
    with pytest.raises(FileExistsError):
        Client(URL, "run", spool=__file__)


@pytest.mark.parametrize("secret", [
    {"token": "secret x"}, {"token": "secret\u00e9"}, {"urls": "http://u:secret@x"}, {"urls": "ftp://u:secret@x"}, {"urls": "http://u:secret@x:y"},
    {"urls": "http://x/?token=secret"},
    {"urls": "kafka://u:secret@x"}, {"kafka": {"sasl.password": "secret"}}, {"kafka": {"sasl.password": b"secret"}},
], ids=str)
def test_no_secret_is_in_an_error(secret):
    with pytest.raises((TypeError, ValueError)) as caught:
        Client(**{"urls": URL, "run": "run", **secret})
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("right", [
    {"urls": (URL,)}, {"urls": iter([URL, "https://x"])}, {"urls": "HTTP://127.0.0.1:1/path/"}, {"urls": f" {URL}\n"}, {"urls": np.str_(URL)}, {"run": np.str_("run")},
    {"queue_bytes": np.int64(1000)}, {"queue_frames": np.uint8(5)}, {"timeout": np.float32(5)}, {"linger": np.int32(1)}, {"linger": 0},
    {"strict": np.True_}, {"compress": np.False_}, {"token_file": pathlib.Path(__file__)}, {"kafka": {}}, {"producer": ""},
], ids=str)
def test_what_is_right_reaches_a_sender_that_is_a_process(right):
    with Client(**{"urls": URL, "run": "run", "sender": "process", "close_timeout": 0.0, **right}) as oona:
        send(oona, range(1))
        assert oona.stats().frames.handed == 1


def test_schemes_may_be_in_capitals():
    with pytest.raises(ValueError) as caught:
        Client("HTTPS://localhost:1", "run", ca_file=__file__)
    assert "ca_file" in str(caught.value)
    with Client("HTTP://127.0.0.1:1", "run", sender="thread", close_timeout=0.0) as oona:
        assert oona._config.urls == [URL]


@pytest.mark.parametrize(("given", "prefix"), [
    ("", ""), ("/", ""), ("/v1/frames", ""), ("/v1/frames/", ""), ("/v1/events", ""), ("/oona/", "/oona"), ("/oona/v1/events", "/oona"), ("/v1", "/v1"),
])
def test_an_address_may_have_the_path_of_a_request(given, prefix):
    with Server() as server, client(server.url + given, "thread") as oona:
        send(oona, [1])
        assert oona.event("enc.0", 3, 0, 1)
        assert oona.flush(300)
        assert sorted(request.path for request in server.requests) == [f"{prefix}/v1/events", f"{prefix}/v1/frames"]


def test_a_sender_that_cannot_be_started_leaves_nothing_open(monkeypatch):
    descriptors = open_descriptors()

    def no_process(*arguments, **more):
        raise BlockingIOError("too many processes")

    monkeypatch.setattr("oona_client.link.subprocess.Popen", no_process)
    with pytest.raises(BlockingIOError):
        Client(URL, "run", sender="process")
    assert open_descriptors() == descriptors
    with Client(URL, "run", close_timeout=0.0) as oona:  # it is a thread
        assert oona.stats().sender_pid == 0


def test_a_token_is_not_logged(sender, tmp_path, caplog):
    with Server() as server, Client(server.url, "run", token=" secret\n", sender=sender) as oona:
        send(oona, [1])
        assert oona.flush(300)
        assert server.requests[0].headers["authorization"] == "Bearer secret"
    file = tmp_path / "token"
    file.write_text("secret\nother")
    with Server() as server, client(server, sender, token_file=file) as oona:
        send(oona, [1])
        until(lambda: oona.stats().failures > 0)
        file.write_text("right")
        assert oona.flush(300)
        assert server.requests[0].headers["authorization"] == "Bearer right"
    assert "token_file" in caplog.text and "does not answer" not in caplog.text and "secret" not in caplog.text
