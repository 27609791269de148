"""What `tsenv up` says: of refusals, in their real words; of a locked tailnet; of a session that was up already."""

from __future__ import annotations

import json
import socket
import threading
import time
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from tsenv import bringup
from tsenv.bringup import Wanted
from tsenv.commands import up
from tsenv.errors import TsenvError
from tsenv.session import Options, Session

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

WANTED = Wanted(options=Options(accept_dns=False), timeout=5)
# Go, crypto/x509/verify.go: CertificateInvalidError, Expired.
X509 = "x509: certificate has expired or is not yet valid: current time 2026-11-24T12:00:00Z is "
EARLY, LATE = X509 + "before 2027-01-01T00:00:00Z", X509 + "after 2026-01-01T00:00:00Z"
# tailscale, health/warnings.go: login-state; control/controlclient/direct.go: loadServerPubKeys.
FETCH = 'You are logged out. The last login error was: fetch control key: Get "https://hs.example.com/key?v=142": '
# tailscale, health/healthmsg: LockedOut.
LOCKED_OUT = (
    "this node is locked out; it will not have connectivity until it is signed. "
    "For more info, see https://tailscale.com/s/locked-out"
)


class Said(list[str]):
    """A Progress that keeps what it is told."""

    def phase(self, text: str) -> None:
        """Of no interest."""

    def note(self, text: str) -> None:
        """Kept."""
        self.append(text)


# --- refusals --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("backend error: invalid key: unable to validate API key", "the auth key is not valid"),
        ("backend error: invalid key: API key does not exist", "the auth key is not valid"),
        # headscale, hscontrol/types/preauth_key.go, hscontrol/auth.go and hscontrol/state
        ("backend error: invalid authkey", "the auth key is not valid"),
        ("backend error: invalid pre auth key", "the auth key is not valid"),
        ("backend error: authkey expired", "the auth key has expired"),
        ("backend error: authkey already used", "the auth key was used already"),
        ("backend error: requested tags [tag:x] are invalid or not permitted", "the tags are not permitted"),
        # tailscale, feature/identityfederation
        ("federated identity authkeys require --id-token", "no identity token is to be had here"),
        (FETCH + EARLY, "the clock of this machine is wrong: it is behind"),
        (FETCH + LATE, "the server's certificate has expired, or the clock of this machine is ahead"),
        # The OAuth exchange is by `tailscale up` itself.
        (f'Post "https://api.tailscale.com/api/v2/oauth/token": tls: failed to verify certificate: {EARLY}', "the clock"),
        ("something new", "login failed: something new"),
    ],
)
def test_words_of_servers(words: str, says: str) -> None:
    said = bringup.refusal(words)
    assert said.message.startswith(says)
    assert words in said.message


def test_what_the_daemon_knows_is_said_when_time_is_over() -> None:
    assert bringup.login_error("NeedsLogin", "", FETCH + EARLY, WANTED).message.startswith("the clock of this machine")


def test_device_approval_is_named() -> None:
    said = bringup.login_error("NeedsMachineAuth", "", "", WANTED).message
    assert said == "this machine was not approved within 5 s"


# --- a locked tailnet ------------------------------------------------------------------------------------------------------

ANSWERS: dict[str, dict[str, Any]] = {
    "status": {"BackendState": "Running", "TailscaleIPs": ["100.64.0.9"]},
    "tka/status": {"Enabled": True, "NodeKey": "nodekey:ab12", "PublicKey": "nlpub:cd34", "NodeKeySigned": False},
}


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[dict[str, dict[str, Any]]]:
    """A socket that answers as tailscaled's LocalAPI; its answers may be changed."""
    answers = {path: dict(answer) for path, answer in ANSWERS.items()}
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "tailscaled.sock"))
        listening.listen()

        def serve() -> None:
            while True:
                try:
                    connection = listening.accept()[0]
                except OSError:
                    return
                with connection:
                    path = connection.recv(4096).split(b" ")[1].decode().removeprefix("/localapi/v0/")
                    connection.sendall(b"HTTP/1.0 200 OK\r\n\r\n" + json.dumps(answers[path]).encode())

        thread = threading.Thread(target=serve)
        thread.start()
        yield answers
        listening.shutdown(socket.SHUT_RDWR)  # wakes accept
        thread.join()


@pytest.mark.parametrize("health", [[LOCKED_OUT], ["Some other trouble", LOCKED_OUT], ["Some other trouble"], None])
def test_a_node_that_is_locked_out_is_told_of(tmp_path: Path, daemon: Any, health: list[str] | None) -> None:
    daemon["status"]["Health"] = health
    said = Said()
    tools: Any = None
    status = bringup._await_names(str(tmp_path), WANTED, tools, time.monotonic() + 5, said)
    assert status.addresses == ("100.64.0.9",)
    if LOCKED_OUT not in (health or ()):
        assert said == []
        return
    (note,) = said
    first, second = note.splitlines()
    assert first.startswith("warning: the tailnet is locked and this node is not signed")
    assert second.endswith(": tailscale lock sign nodekey:ab12 nlpub:cd34")


# --- up already ------------------------------------------------------------------------------------------------------------


def asked(**said: Any) -> Any:
    return SimpleNamespace(**{"ttl": None, "with_pid": None, **said})


def test_a_session_that_was_up_keeps_its_time() -> None:
    said = Said()
    up.keep_its_end(Session("ci", until=time.time() + 60), asked(), said)
    assert said == []
    up.keep_its_end(Session("ci"), asked(ttl=60.0), said)
    up.keep_its_end(Session("ci", until=0.5), asked(ttl=60.0), said)
    assert said[0] == "up already: --ttl is not applied, it ends at no time"
    assert said[1].startswith(
        f"up already: --ttl is not applied, it ends at {time.strftime('%Y-%m-%d %H:%M', time.localtime(0))}"
    )


@pytest.mark.parametrize(("there", "named"), [(None, "no process"), (7, "process 7")])
def test_a_session_that_was_up_is_bound_to_no_other_process(there: int | None, named: str) -> None:
    record = Session("ci", with_pid=there)
    with pytest.raises(TsenvError) as caught:
        up.keep_its_end(record, asked(with_pid=8), Said())
    assert caught.value.message == f"session 'ci' is up and ends with {named}, not with 8"
    assert caught.value.hint.startswith("tsenv -n ci down ")
    up.keep_its_end(record, asked(with_pid=there), Said())
