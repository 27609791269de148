""".tsenv.toml: keys, refusals, trust, and a schema that is true."""

import json
import os
from pathlib import Path

import pytest
from conftest import REPOSITORY
from hypothesis import given
from hypothesis import strategies as st

from tsenv import config
from tsenv.errors import TsenvError

FULL = """
name = "work"
up = true
login_server = "https://headscale.example"
auth_key_file = "~/.key"
client_id = "k1"
client_secret_file = "~/.secret"
id_token_file = "/run/token"
audience = "api"
hostname = "laptop"
exit_node = "gate"
accept_routes = true
accept_dns = false
advertise_tags = ["tag:ci"]
allow_incoming = true
publish = [8080, "0.0.0.0:53/udp"]
host_port = [5432]
ephemeral = false
timeout = 30
wait_for = ["my-server:22"]
underlay = "pasta"
isolated = true
ttl = "1h30m"
tailscale_up = ["--snat-subnet-routes=false"]
[wrap]
only = ["ssh"]
skip = ["git"]
"""


@pytest.fixture(autouse=True)
def own_home(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PWD", str(tmp_path))
    return tmp_path


def parse(text):
    return config.parse(text.encode(), Path("/x/.tsenv.toml"))


def test_every_key():
    found = parse(FULL)
    assert set(config.KEYS) == {line.split(" = ")[0] for line in FULL.split("[wrap]", maxsplit=1)[0].split("\n") if line}
    assert all(getattr(found, key) is not None for key in config.KEYS)
    assert found.wrap == config.Wrap(("ssh",), ("git",))
    assert found.up_options()["wait_for"] == ("my-server:22",)
    assert not {"name", "up", "wrap", "path"} & set(found.up_options())
    assert parse("").up_options() == {}


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("exit-node = 'x'", "unknown key 'exit-node'", "did you mean 'exit_node'?"),
        ("acept_routes = true", "unknown key 'acept_routes'", "did you mean 'accept_routes'?"),
        ("auth_key = 'tskey'", "unknown key 'auth_key'", "did you mean 'auth_key_file'?"),
        ("skip = []", "unknown key 'skip'", "did you mean 'wrap.skip'?"),
        ("zzzz = 1", "unknown key 'zzzz'", "known keys: name, up,"),
        ("[wrap]\nskp = []", "unknown key 'wrap.skp'", "did you mean 'wrap.skip'?"),
        ('"a\\u001b[31m" = 1', "unknown key 'a?[31m'", ""),
        ("name = '../x'", "name must be a name", ""),
        ("name = 1", "name must be", ""),
        ("up = 'yes'", "up must be true or false", ""),
        ("timeout = true", "timeout must be a number", ""),
        ("timeout = -1", "timeout must be a number", ""),
        ("timeout = nan", "timeout must be a number", ""),
        ("publish = [0]", "publish must be a list of ports", ""),
        ("publish = ['80 ']", "publish must be a list of ports", ""),
        ("publish = 80", "publish must be a list of ports", ""),
        ("underlay = 'tap'", "underlay must be auto, host or pasta", ""),
        ("ttl = '2 hours'", "ttl must be a time like", ""),
        ("wrap = 1", "wrap must be a table", ""),
        ("[wrap]\nonly = ['/bin/ssh']", "wrap.only must be", ""),
        ('hostname = "a\\nb"', "hostname must be", ""),
        ("name = ", "not TOML", ""),
    ],
)
def test_bad_files_are_refused_by_name(text, message, hint):
    with pytest.raises(TsenvError) as caught:
        parse(text)
    assert message in caught.value.message
    assert caught.value.message.isprintable()
    assert hint in caught.value.hint


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(content):
    try:
        config.parse(content, Path("/x/.tsenv.toml"))
    except TsenvError as error:
        assert error.message.isprintable()


def test_deep_nesting_is_refused():
    with pytest.raises(TsenvError):
        parse("name = " + "[" * 100_000)


def test_schema_is_kept_true():
    """Regenerate: python -c 'import json; from tsenv import config; print(json.dumps(config.schema(), indent=2))'."""
    assert json.loads((REPOSITORY / "docs/tsenv.schema.json").read_text()) == config.schema()


def test_schema_accepts_what_we_accept():
    jsonschema = pytest.importorskip("jsonschema")
    import tomllib

    jsonschema.validate(tomllib.loads(FULL), config.schema())
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"exit-node": "x"}, config.schema())


def test_found_upward(own_home):
    deep = own_home / "a/b"
    deep.mkdir(parents=True)
    assert config.find(deep) is None or own_home not in config.find(deep).parents
    (own_home / ".tsenv.toml").write_text("name = 'x'")
    assert config.find(deep) == own_home / ".tsenv.toml"
    (own_home / "a/.tsenv.toml").symlink_to("nowhere")
    assert config.find(deep) == own_home / "a/.tsenv.toml"
    with pytest.raises(TsenvError, match="is a symlink: refused"):
        config.load(own_home / "a/.tsenv.toml")


def test_trust_is_of_the_content(own_home):
    path = own_home / ".tsenv.toml"
    path.write_text("name = 'x'")
    assert not config.load(path).trusted
    config.allow(path)
    assert config.load(path).trusted
    path.write_text("name = 'y'")
    assert not config.load(path).trusted
    path.write_text("name = 'x'")
    assert config.load(path).trusted
    config.deny(path)
    assert not config.load(path).trusted
    config.allow(path)
    assert config.load(path).trusted
    kept = list((own_home / "data").rglob(".tsenv.toml"))
    assert [oct(file.stat().st_mode & 0o777) for file in kept] == ["0o600"] * len(kept)


def test_a_file_that_does_not_parse_is_not_allowed(own_home):
    path = own_home / ".tsenv.toml"
    path.write_text("nme = 'x'")
    with pytest.raises(TsenvError, match="unknown key"):
        config.allow(path)
    assert not config.is_allowed(path)


def test_below_a_linked_folder_both_spellings_count(own_home, monkeypatch):
    (own_home / "real").mkdir()
    (own_home / "linked").symlink_to("real")
    (own_home / "real/.tsenv.toml").write_text("name = 'x'")
    monkeypatch.chdir(own_home / "linked")
    monkeypatch.setenv("PWD", str(own_home / "linked"))
    config.allow(config.chosen(None))
    store = config.allow_store()
    for folder in ("real", "linked"):
        assert store.joinpath(*(own_home / folder).parts[1:], ".tsenv.toml").is_file()


def test_what_is_no_file_of_ours_is_refused(own_home):
    path = own_home / ".tsenv.toml"
    path.mkdir()
    with pytest.raises(TsenvError, match="not a regular file"):
        config.read(path)
    path.rmdir()
    os.mkfifo(path)
    with pytest.raises(TsenvError, match="not a regular file"):
        config.read(path)
    path.unlink()
    path.write_bytes(b"#" * (config.MAX_BYTES + 1))
    with pytest.raises(TsenvError, match="larger than"):
        config.read(path)
    if os.getuid() == 0:
        os.chown(path, 12345, 12345)
        with pytest.raises(TsenvError, match="belongs to another user"):
            config.read(path)
