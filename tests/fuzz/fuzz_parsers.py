"""Coverage-guided fuzzing of the parsers, by atheris, for as long as one likes (not part of `make test`).

    uv venv /tmp/fuzz && uv pip install -p /tmp/fuzz atheris
    PYTHONPATH=. /tmp/fuzz/bin/python tests/fuzz/fuzz_parsers.py config|record|status|names -max_total_time=60

Anything but a TsenvError is a find; libFuzzer writes the input to crash-… in the working directory.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["tsenv"]):
    from tsenv import config, daemon, namespace, paths, session
    from tsenv.errors import TsenvError

FOLDER = Path(tempfile.mkdtemp()) / "tsenv/x"


def one_config(data: bytes) -> None:
    """Feed `.tsenv.toml`."""
    with contextlib.suppress(TsenvError):
        config.parse(data, Path("/x/.tsenv.toml")).up_options()


def one_record(data: bytes) -> None:
    """Feed `session.json`."""
    (FOLDER / "session.json").write_bytes(data)
    with contextlib.suppress(TsenvError):
        session.load("x")
        session.state("x")


def one_status(data: bytes) -> None:
    """Feed `tailscale status --json`: what it gives is fit for a terminal."""
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        return
    if isinstance(found, dict):
        status = daemon.Status.parse(found)
        for peer in status.peers:
            assert (peer.name + peer.dns_name + peer.path).isprintable()


def one_name(data: bytes) -> None:
    """Feed session names and ports."""
    text = data.decode(errors="surrogateescape")
    for parse in (paths.valid_name, lambda t: namespace.port_spec(t, loopback=True)):
        with contextlib.suppress(TsenvError):
            parse(text)


# Without whole examples to change, JSON and TOML are hardly ever hit upon.
SEEDS = {
    "config": [b'name = "x"\nup = true\npublish = [80]\nttl = "2h"\n[wrap]\nonly = ["ssh"]\n'],
    "record": [json.dumps(dataclasses.asdict(session.Session("x", pids={"anchor": session.Process(1, 2)}))).encode()],
    "status": [(b'{"BackendState":"Running","Health":["x"],"Self":{"HostName":"a","DNSName":"a.b."},"Peer":{"k":{"HostName":"b",'
               b'"DNSName":"b.c.","TailscaleIPs":["100.64.0.1"],"Online":true,"Relay":"r","Active":true,"ID":"1"}},'
               b'"ExitNodeStatus":{"ID":"1"}}')],
    "names": [b"default", b"127.0.0.1:80/udp", b"[::1]:80"],
}  # fmt: skip

TARGETS = {"config": one_config, "record": one_record, "status": one_status, "names": one_name}


def main() -> None:
    """Fuzz the target that the command line names."""
    name = sys.argv.pop(1)
    FOLDER.mkdir(parents=True, mode=0o700)
    corpus = FOLDER.parent.parent / "corpus"
    corpus.mkdir()
    for number, seed in enumerate(SEEDS[name]):
        (corpus / str(number)).write_bytes(seed)
    FOLDER.parent.chmod(0o700)
    os.environ["XDG_RUNTIME_DIR"] = str(FOLDER.parent.parent)
    atheris.Setup([*sys.argv, str(corpus)], TARGETS[name])
    atheris.Fuzz()


if __name__ == "__main__":
    main()
