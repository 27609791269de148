"""What a project's own tests look like with the fixture `tailnet` (conftest.py beside this file)."""

import subprocess

import pytest
import tsenv
from plumbum import local
from plumbum.commands import ProcessExecutionError


def test_the_page(tailnet: tsenv.Session) -> None:
    assert "tailnet" in tailnet.cmd.curl("-sS", "http://my-server/")


def test_a_pipe_that_leaves_the_tailnet(tailnet: tsenv.Session) -> None:
    chain = tailnet["ssh"]["my-server", "echo one; echo two"] | local["wc"]["-l"]
    assert chain().strip() == "2"


def test_a_refusal(tailnet: tsenv.Session) -> None:
    status, _, words = tailnet["ssh"]["my-server", "exit 3"].run(retcode=None)
    assert (status, words) == (3, "")
    with pytest.raises(ProcessExecutionError, match="port 1"):
        tailnet["curl"]["-sS", "http://my-server:1/"]()


def test_a_server_of_ours_talks_to_it(tailnet: tsenv.Session) -> None:
    with tailnet.popen(["nc", "my-server", "7"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        child.stdin.write(b"hello\n")
        child.stdin.close()
        assert child.stdout.read(6) == b"hello\n"
        child.terminate()
