"""Whatever stands in a file, or comes from the network: it is understood, or refused in words. Nothing else happens."""

from __future__ import annotations

import dataclasses
import json
import os
import string
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tsenv import config, daemon, namespace, paths, session
from tsenv.commands import status as status_command
from tsenv.errors import TsenvError
from tsenv.session import Options, Process, Session
from tsenv.supervisor import is_host

settings.register_profile(
    "tsenv", max_examples=int(os.environ.get("TSENV_FUZZ", "150")), deadline=None, database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)  # fmt: skip
settings.load_profile("tsenv")

# What a terminal or a shell would act on, and what breaks parsers.
NASTY = ("\x1b]0;owned\x07", "\x1b[2J", "\r", "\n", "\0", "\u202e", "\u2028", "$(x)", "`x`", "';x;'", "../x", "-x", "\x9b31m")
words = st.one_of(st.text(max_size=40), st.sampled_from(NASTY), st.builds("".join, st.lists(st.sampled_from(NASTY))))
scalars = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=True), words)
values = st.recursive(
    scalars, lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(words, inner, max_size=4)), max_leaves=12
)


def fit_for_a_terminal(text: str) -> bool:
    """No control character, no direction mark, no line end: nothing that a terminal would act on."""
    return text.isprintable()


# --- names ----------------------------------------------------------------------------------------------------------


@given(words)
def test_a_name_is_taken_as_it_is_or_refused(name: str) -> None:
    try:
        assert paths.valid_name(name) == name
    except TsenvError as error:
        assert error.code == 2
        assert all(fit_for_a_terminal(line) for line in str(error).splitlines())
        return
    assert set(name) <= set(string.ascii_letters + string.digits + "._-")
    assert name[0] not in "._-"
    assert os.path.dirname(paths.session_dir(name)) == paths.runtime_base()


@given(words)
def test_what_completions_may_read_is_a_host_name(name: str) -> None:
    if is_host(name):
        assert set(name) <= set(string.ascii_letters + string.digits + ".-")
        assert not name.startswith("-")


# --- .tsenv.toml ----------------------------------------------------------------------------------------------------


@given(st.binary(max_size=300))
def test_any_bytes_as_config(content: bytes) -> None:
    _parse(content)


KEYS = st.sampled_from([*config.KEYS, *map(str.upper, config.KEYS), "wrap", "x"])


@given(st.dictionaries(KEYS, values, max_size=4))
def test_any_values_as_config(table: dict[str, Any]) -> None:
    _parse("".join(f"{key} = {json.dumps(value)}\n" for key, value in table.items()).encode(errors="replace"))


def _parse(content: bytes) -> None:
    try:
        found = config.parse(content, Path("/x/.tsenv.toml"))
    except TsenvError as error:
        assert fit_for_a_terminal(error.message), error.message
        return
    for value in found.up_options().values():
        for word in value if isinstance(value, tuple) else (value,):
            assert not isinstance(word, str) or fit_for_a_terminal(word)


# --- session.json ---------------------------------------------------------------------------------------------------


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The directory of a session x."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    folder = tmp_path / "tsenv/x"
    folder.mkdir(parents=True, mode=0o700)
    folder.parent.chmod(0o700)
    return folder


def _load(place: Path, content: bytes) -> None:
    (place / "session.json").write_bytes(content)
    try:
        found = session.load("x")
        assert found is not None
        assert found.name == "x"
    except TsenvError as error:
        assert "down --force" in error.hint
    # And what every verb asks of it.
    try:
        assert session.state("x") in ("up", "degraded", "starting", "stopping", "dead", "half-made")
        status_command.report("x")
    except TsenvError:
        pass


@given(st.binary(max_size=200))
def test_any_bytes_as_record(place: Path, content: bytes) -> None:
    _load(place, content)


FIELDS = st.sampled_from([f.name for f in dataclasses.fields(Session)])


@given(st.dictionaries(FIELDS, values, max_size=5))
def test_any_value_in_a_record(place: Path, changes: dict[str, Any]) -> None:
    whole = dataclasses.asdict(Session("x", pids={"supervisor": Process(1, 1), "anchor": Process(2, 1)}))
    _load(place, json.dumps(whole | changes).encode())


@given(st.builds(Options, login_server=words, hostname=words, publish=st.lists(words).map(tuple), isolated=st.booleans()))
def test_options_survive_the_record(options: Options) -> None:
    back = Options.from_json(json.loads(json.dumps(dataclasses.asdict(options))))
    assert back == options
    assert not back.differences(options)


# --- what tailscaled says -------------------------------------------------------------------------------------------

PEER = st.fixed_dictionaries(
    {},
    optional=dict.fromkeys(("HostName", "DNSName", "TailscaleIPs", "Online", "CurAddr", "Relay", "Active", "ID", "ExitNodeOption"), values),
)
STATUS = st.fixed_dictionaries(
    {},
    optional={
        "BackendState": values, "TailscaleIPs": values, "Self": st.one_of(values, PEER), "Health": values, "AuthURL": values,
        "CurrentTailnet": values, "ExitNodeStatus": values,
        "Peer": st.one_of(values, st.dictionaries(words, st.one_of(values, PEER), max_size=3)),
    },
)  # fmt: skip


@given(STATUS)
def test_any_status_of_tailscaled_is_fit_for_a_terminal(data: dict[str, Any]) -> None:
    found = daemon.Status.parse(data)
    texts = [found.state, *found.addresses, found.name, found.dns_name, *found.tags, *found.health, found.auth_url]
    for peer in found.peers:
        texts += [peer.name, peer.dns_name, *peer.addresses, peer.path]
    assert all(fit_for_a_terminal(text) for text in [*texts, found.exit_node, found.key_expiry])


@given(st.lists(st.one_of(st.binary(max_size=60), st.just(b"\r\n\r\n"), st.just(b"{}\n"), values.map(lambda v: json.dumps(v).encode() + b"\n"))))
def test_any_stream_from_the_bus_ends_in_words_or_in_notices(chunks: list[bytes]) -> None:
    import socket

    ours, theirs = socket.socketpair()
    bus = daemon.Bus(ours)
    notices: list[dict[str, Any]] = []
    with theirs, ours:
        for chunk in [b"HTTP/1.0 200 OK\r\n\r\n", *chunks]:
            theirs.sendall(chunk)
            if not bus.read(notices.append):
                break
    assert all(isinstance(notice, dict) for notice in notices)


@given(st.lists(st.one_of(words, st.sampled_from(["nameserver", "nameserver 127.0.0.53", "search x", "nameserver fe80::1%eth0"]))))
def test_any_resolv_conf(lines: list[str]) -> None:
    class Reader(namespace.Reader):
        @staticmethod
        def lines(path: str) -> list[str]:
            del path
            return [line.strip() for line in "\n".join(lines).splitlines() if line.strip() and line.strip()[0] not in "#;"]

    found = namespace.resolvers(Reader())
    assert all("\n" not in line for line in found.lines)


@given(words)
def test_any_port_is_pastas_form_or_refused(text: str) -> None:
    try:
        spec = namespace.port_spec(text, loopback=True)
    except TsenvError as error:
        assert error.code == 2
        return
    assert set(spec) <= set(string.hexdigits + ".:/udp")
