"""Completions asked in real shells, and held against the parser: every verb, every option, no other."""

import argparse
import re
import subprocess
import time

import pexpect
import pytest
from conftest import REPOSITORY, shell_path

from tsenv import cli

FILES = {"bash": "tsenv.bash", "zsh": "_tsenv", "fish": "tsenv.fish"}
LATER = {"env", "doctor"}  # of a later issue, completed already
PEERS = "my-server\nmy-server.tail.example\n$(touch hacked)\n`touch hacked`\n-oProxyCommand=x\nbad;name\nbuilder\n"


def subparsers(parser):
    return next(a for a in parser._actions if isinstance(a, argparse._SubParsersAction)).choices


def options(parser):
    return {o for a in parser._actions if a.help != argparse.SUPPRESS for o in a.option_strings}


def known():
    """Verb (or None for before it) → its options, as far as the verbs exist."""
    top = cli.parser()
    return {None: options(top)} | {verb: options(sub) for verb, sub in subparsers(top).items()}


@pytest.fixture
def completed(session):
    """The completions of a line, asked in a real shell."""
    (session.session_dir("default") / "peers").write_text(PEERS)
    session.up("other")
    (session.root / "work/file-here").touch()

    def ask(shell, line, **environment):
        folder = REPOSITORY / "completions"
        if shell == "bash":
            script = f"""set -u; source '{folder}/tsenv.bash'
                {environment.pop("BEFORE", "")}
                words=({line.replace("$", chr(92) + "$")}); [[ $LINE == *' ' ]] && words+=('')
                COMP_WORDS=("${{words[@]}}"); COMP_CWORD=$((${{#words[@]}}-1)); COMP_LINE=$LINE; COMP_POINT=${{#LINE}}
                _tsenv; printf '%s\\n' "${{COMPREPLY[@]-}}" """
        else:
            script = f"source '{folder}/tsenv.fish'; {environment.pop('BEFORE', '')}; complete -C \"$LINE\""
        done = session.run(shell, script, LINE=line, **environment)
        return [answer.split("\t")[0] for answer in done.stdout.splitlines() if answer]

    ask.world = session
    return ask


ASKED = ["bash", "fish"]


@pytest.mark.parametrize("shell", ASKED)
def test_verbs(completed, shell):
    assert set(completed(shell, "tsenv ")) - LATER == set(cli.VERBS) - LATER
    assert completed(shell, "tsenv sta") == ["status"]
    assert completed(shell, "tsenv -n other sta") == ["status"]


@pytest.mark.parametrize("shell", ASKED)
@pytest.mark.parametrize("verb", [verb for verb in known() if verb not in {"exec", "tailscale", None}])
def test_options(completed, shell, verb):
    found = {o for dash in ("-", "--") for o in completed(shell, f"tsenv {verb} {dash}") if o.startswith("-")}
    assert found == known()[verb]


@pytest.mark.parametrize("shell", ASKED)
def test_global_options(completed, shell):
    assert {o for dash in ("-", "--") for o in completed(shell, f"tsenv {dash}")} == known()[None]


def test_zsh_knows_the_same_words():
    """What stands in _tsenv for each verb, since zsh shows its answers only on a terminal."""
    text = (REPOSITORY / "completions/_tsenv").read_text()
    verbs = set(re.findall(r"^        '([a-z]+):", text, re.MULTILINE))
    assert verbs - LATER == set(cli.VERBS) - LATER
    up = set(re.findall(r"(--[a-z-]+)\[", text.split("    up=(")[1].split("\n    )")[0]))
    assert up == known()["run"] - {"-h", "--help"}
    assert known()["up"] - known()["run"] == {"--github"} and "--github[" in text
    for verb, wanted in known().items():
        if verb in {None, "up", "run", "exec", "tailscale"}:
            continue
        code = re.search(rf"^    (?:[a-z| ]*\b)?{verb}\b[a-z| ]*\)(.*?)(?=^    [a-z*]|;;)", text, re.MULTILINE | re.DOTALL)
        said = set(re.findall(r"(--[a-z-]+)\[", code[1] if code else "")) | set(re.findall(r"(--[a-z]+)\}", code[1] if code else ""))
        assert said == {o for o in wanted if o.startswith("--")} - {"--help"}, verb


@pytest.mark.parametrize("shell", ASKED)
def test_session_names(completed, shell):
    for line in ("tsenv -n ", "tsenv status ", "tsenv down ", "tsenv activate ", "tsenv -n default logs ", "tsenv --name="):
        got = [name.removeprefix("--name=") for name in completed(shell, "tsenv --name = " if (shell, line[-1]) == ("bash", "=") else line)]
        assert set(got) == {"default", "other"}, line
    assert completed(shell, "tsenv status default ") == []


@pytest.mark.parametrize("shell", ASKED)
def test_peers_for_options_and_hosts(completed, shell):
    hosts = {"my-server", "my-server.tail.example", "builder"}
    assert set(completed(shell, "tsenv up --exit-node ")) == hosts
    assert completed(shell, "tsenv up --wait-for bu") == ["builder"]
    for line in ("tsenv exec ssh ", "tsenv exec -- ping ", "tsenv -n default exec curl ", "tsenv run --ephemeral -- ssh "):
        got = set(completed(shell, line))
        assert hosts <= got, line
        assert not any(letter in name for name in got for letter in "$`;"), got
    assert {f"{host}:" for host in hosts} <= set(completed(shell, "tsenv exec scp "))


@pytest.mark.parametrize("shell", ASKED)
def test_the_inner_command_completes_itself(completed, shell):
    if shell == "bash":
        before = '_inner() { COMPREPLY=("<$1|$2|$3|$COMP_CWORD|${COMP_WORDS[*]}|$COMP_LINE|$COMP_POINT>"); }; complete -F _inner inner; complete -W "red green" colour'
        assert completed(shell, "tsenv exec inner che", BEFORE=before) == ["<inner|che|inner|1|inner che|inner che|9>"]
        assert completed(shell, "tsenv -n x exec -- inner a -", BEFORE=before) == ["<inner|-|a|2|inner a -|inner a -|9>"]
        assert completed(shell, "tsenv run --ttl 1h -- inner ", BEFORE=before) == ["<inner||inner|1|inner |inner |6>"]
        assert completed(shell, "tsenv exec colour gr", BEFORE=before) == ["green"]
    else:
        before = "complete -c inner -f -a 'cheese cherry'; complete -c inner -l long"
        assert completed(shell, "tsenv exec inner che", BEFORE=before) == ["cheese", "cherry"]
        assert completed(shell, "tsenv -n x exec -- inner --lo", BEFORE=before) == ["--long"]
        assert completed(shell, "tsenv run --ttl 1h -- inner che", BEFORE=before) == ["cheese", "cherry"]
    assert "whereami" in completed(shell, "tsenv exec wherea")
    assert "whereami" in completed(shell, "tsenv run -- wherea")


def test_bash_completion_package_loads_the_inner_one(completed):
    before = '_completion_loader() { _late() { COMPREPLY=(loaded); }; complete -F _late "$1"; return 124; }'
    assert completed("bash", "tsenv exec late l", BEFORE=before) == ["loaded"]


@pytest.mark.parametrize("shell", ASKED)
def test_values(completed, shell):
    assert set(completed(shell, "tsenv up --underlay ")) == {"auto", "host", "pasta"}
    assert set(completed(shell, "tsenv hook ")) == {"bash", "zsh", "fish"}
    assert set(completed(shell, "tsenv activate --shell z")) == {"zsh"}


@pytest.mark.parametrize("shell", ASKED)
def test_a_tab_answers_within_30_ms_and_starts_no_python(completed, shell):
    """Forks of the shell itself are allowed (bash has no other way to list commands), programs are not."""
    session = completed.world
    line = "tsenv exec ssh my"
    log = session.root / "trace"
    command = f"words=({line})" if shell == "bash" else "true"
    load = f"source '{REPOSITORY}/completions/{FILES[shell]}'"
    once = "COMP_WORDS=(tsenv exec ssh my); COMP_CWORD=3; COMP_LINE=$LINE; COMP_POINT=17; _tsenv" if shell == "bash" else 'complete -C "$LINE" >/dev/null'
    argv = ["strace", "-f", "-qq", "-e", "trace=execve", "-o", log, shell_path(shell), "-c", f"{load}; {command}; {once}"]
    subprocess.run(argv, env={**session.environment, "LINE": line}, cwd=session.root / "work", check=True, capture_output=True)
    assert not [started for started in log.read_text().splitlines()[1:] if re.search(r"python|tsenv\b.*= 0", started.split(",")[0])]
    loop = f"i=0; while [ $i -lt 20 ]; do {once}; i=$((i+1)); done" if shell == "bash" else f"for i in (seq 20); {once}; end"

    def seconds(what):
        started = time.monotonic()
        session.run(shell, f"{load}; {once}; {what}", LINE=line)
        return time.monotonic() - started

    assert min(seconds(loop) for _ in range(2)) - min(seconds("true") for _ in range(2)) < 20 * 0.030


@pytest.fixture
def zsh(session):
    (session.session_dir("default") / "peers").write_text(PEERS)
    session.up("other")
    rc = f"PS1='$ '; unsetopt prompt_sp; fpath=('{REPOSITORY}/completions' $fpath); autoload -Uz compinit; compinit -u -D\n"
    rc += "zstyle ':completion:*' list-colors ''; LISTMAX=0; unsetopt list_ambiguous; bindkey '^X' list-choices; setopt auto_list\n_inner() { compadd cheese cherry }; compdef _inner inner\n"
    (session.home / ".zshrc").write_text(rc)
    child = pexpect.spawn(
        shell_path("zsh"), ["-i"], env={**session.environment, "TERM": "dumb"}, cwd=str(session.root / "work"), encoding="utf-8", timeout=15, echo=False, dimensions=(200, 200),
    )  # fmt: skip
    child.sendline("echo REA''DY")
    child.expect("READY\r\n")

    def ask(line):
        child.send(line + "\x18")
        time.sleep(0.7)
        child.send("\x15echo EN''D\n")
        try:
            child.expect("END\r\n")
        except pexpect.TIMEOUT:
            pytest.fail(f"zsh: {line!r}\n{child.before}")
        return child.before

    yield ask
    child.close(force=True)


def test_zsh_on_a_terminal(zsh):
    assert "bring a session up" in zsh("tsenv ")
    shown = zsh("tsenv up --")
    assert "--exit-node" in shown
    assert "--wait-for" in shown
    shown = zsh("tsenv status ")
    assert "default" in shown
    assert "other" in shown
    assert "cheese" in zsh("tsenv exec inner ch")
    assert "cheese" in zsh("tsenv -n other exec -- inner ch")
    assert "cheese" in zsh("tsenv run --ttl 1h -- inner ch")
    shown = zsh("tsenv up --exit-node ")
    assert "my-server.tail.example" in shown
    assert "touch" not in shown
    assert "my-server" in zsh("tsenv exec ssh my")
    assert "--json" in zsh("tsenv list --")


def test_zsh_before_compinit(session):
    """PAINS 2.22."""
    done = session.run("zsh", 'eval "$(tsenv completion zsh)"; eval "$(tsenv hook zsh)"', "-f")
    assert done.stdout + done.stderr == ""


@pytest.mark.parametrize("shell", FILES)
def test_completion_prints_the_file(session, shell):
    assert session.tsenv("completion", shell).stdout == (REPOSITORY / "completions" / FILES[shell]).read_text()
    assert session.tsenv("completion", "ksh", check=False).stdout == "false\n"
