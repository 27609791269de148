"""Argv builders, ports and resolvers: pure functions, and what must not get lost from them."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tsenv import namespace
from tsenv.errors import USAGE, TsenvError
from tsenv.namespace import BEFORE_TAILSCALE, DNS_FORWARD, RESOLV, RESOLVED_REAL, Reader, Resolvers, port_spec
from tsenv.tools import find

NSENTER = find("nsenter")

# --- argv ------------------------------------------------------------------------------------------------------------------


def pasta(publish: tuple[str, ...] = (), host_port: tuple[str, ...] = (), *, dns_forward: bool = False) -> list[str]:
    return namespace.pasta_argv(publish, host_port, dns_forward=dns_forward, pasta="/bin/pasta")


def test_pasta_is_closed_unless_told() -> None:
    """Its own defaults forward every listening port, both ways, and the gateway's address to the host's loopback."""
    assert pasta() == [
        "/bin/pasta", "--config-net", "--quiet", "--no-map-gw",
        "-t", "none", "-u", "none", "-T", "none", "-U", "none",
    ]  # fmt: skip


def test_each_port_opens_one_way() -> None:
    argv = pasta(("127.0.0.1/80", "127.0.0.1/53/udp", "81"), ("5432", "514/udp"))
    pairs = list(zip(argv[4::2], argv[5::2], strict=True))
    assert pairs == [
        ("-t", "127.0.0.1/80"), ("-t", "81"), ("-u", "127.0.0.1/53"), ("-T", "5432"), ("-U", "514"),
    ]  # fmt: skip


def test_names_are_forwarded_where_the_resolver_is_on_loopback() -> None:
    assert pasta(dns_forward=True)[-2:] == ["--dns-forward", DNS_FORWARD]


def test_the_holder_is_where_apparmor_lets_pasta_start_it() -> None:
    program, _, script = namespace.holder_argv()
    assert program == "/bin/sh"
    assert "/bin/cat" in script
    assert script.startswith("echo")  # its word, with which the kernel sends its pid


def test_the_anchor_takes_mounts_in_and_gives_none_out() -> None:
    argv = namespace.anchor_argv(42, "/run/s", "/var/s", "/bin/tailscale", [])
    assert argv[:2] == [NSENTER, "--target=42"]
    assert {"--user", "--net", "--preserve-credentials"} <= set(argv[: argv.index("--")])
    assert "--propagation=slave" in argv
    assert "--pid" not in " ".join(argv)  # pids and /proc stay the host's: `ps`, job control and shells work
    assert argv[-1] == "/bin/tailscale"


def test_joining_takes_two_steps() -> None:
    argv = namespace.join_argv(10, 11, "--wdns=/tmp")
    second = argv.index(NSENTER, 1)
    assert argv[:second] == [NSENTER, "-t", "10", "-U", "-n", "-m", "--preserve-credentials", "--wdns=/tmp", "--"]
    assert argv[second:] == [NSENTER, "-t", "11", "-U", "--preserve-credentials", "--"]


def test_the_daemon_enters_without_the_inner_namespace() -> None:
    assert namespace.enter_argv(10) == [
        NSENTER, "--target=10", "--user", "--net", "--mount", "--preserve-credentials", "--",
    ]  # fmt: skip


# --- ports -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "published", "of_host"),
    [
        ("80", "127.0.0.1/80", "80"),
        ("80/tcp", "127.0.0.1/80", "80"),
        ("53/udp", "127.0.0.1/53/udp", "53/udp"),
        ("0.0.0.0:80", "0.0.0.0/80", "0.0.0.0/80"),
        ("[::1]:80", "::1/80", "::1/80"),
        ("[::]:53/udp", "::/53/udp", "::/53/udp"),
        ("65535", "127.0.0.1/65535", "65535"),
    ],
)
def test_ports(text: str, published: str, of_host: str) -> None:
    """A published port is open to this host only, unless an address says otherwise."""
    assert port_spec(text, loopback=True) == published
    assert port_spec(text, loopback=False) == of_host


@pytest.mark.parametrize(
    "text", ["", "0", "65536", "http", "80-90", "80,81", "-80", "all", "auto", "~80", "::1:80", "80/sctp", "80\n", "٨٠"]
)
def test_no_ports(text: str) -> None:
    """What pasta would understand otherwise (ranges, "all", "auto", exclusions) opens more than was meant."""
    with pytest.raises(TsenvError, match="is not a port") as caught:
        port_spec(text, loopback=True)
    assert caught.value.code == USAGE


@pytest.mark.parametrize("text", ["80:80", "256.1.1.1:80", "1.2.3:80", "[1::2::3]:80", "...:80"])
def test_no_addresses(text: str) -> None:
    with pytest.raises(TsenvError, match="is not an address") as caught:
        port_spec(text, loopback=True)
    assert caught.value.code == USAGE


@given(st.text(alphabet="0123456789.:/[]udpc ,-~", max_size=12))
def test_a_port_stays_one_port(text: str) -> None:
    try:
        spec = port_spec(text, loopback=True)
    except TsenvError:
        return
    argv = pasta((spec,))
    assert argv.count("none") == 3
    assert not set(spec) & set(" ,-~")


# --- resolvers -------------------------------------------------------------------------------------------------------------


class Host(Reader):
    """A host with these files."""

    def __init__(self, **files: str) -> None:
        self._files = {
            {"resolv": RESOLV, "real": RESOLVED_REAL, "before": BEFORE_TAILSCALE}[name]: text for name, text in files.items()
        }

    def lines(self, path: str) -> list[str]:  # type: ignore[override]
        return [line.strip() for line in self._files.get(path, "").splitlines() if line.strip()]


STUB = "nameserver 127.0.0.53\noptions edns0 trust-ad\nsearch corp.example"


@pytest.mark.parametrize(
    ("host", "lines", "forward"),
    [
        (Host(resolv="nameserver 10.0.0.1\nnameserver fd00::1"), ("nameserver 10.0.0.1", "nameserver fd00::1"), False),
        (Host(resolv="nameserver 127.0.0.1\nnameserver 10.0.0.1"), ("nameserver 10.0.0.1",), False),
        (
            Host(resolv=STUB, real="nameserver 10.0.0.1\nsearch other"),
            ("nameserver 10.0.0.1", "options edns0 trust-ad", "search corp.example"),
            False,
        ),
        (
            Host(resolv=STUB, real=STUB),
            (f"nameserver {DNS_FORWARD}", "options edns0 trust-ad", "search corp.example"),
            True,
        ),
        (Host(resolv="nameserver ::1"), (f"nameserver {DNS_FORWARD}",), True),
        (Host(resolv="nameserver fe80::1%eth0"), (f"nameserver {DNS_FORWARD}",), True),
        (Host(), (), False),
        (Host(resolv="search home\nnameserver"), ("search home",), False),
        # The host is on a tailnet itself: its resolver lies in its own tunnel.
        (
            Host(resolv="nameserver 100.100.100.100\nsearch tail.ts.net", before="nameserver 10.0.0.1\nsearch home"),
            ("nameserver 10.0.0.1", "search home"),
            False,
        ),
        (Host(resolv="nameserver 100.100.100.100\nnameserver 10.0.0.1"), ("nameserver 10.0.0.1",), False),
        (Host(resolv="nameserver 100.100.100.100"), (), False),
    ],
    ids=["lan", "mixed", "stub", "stub alone", "loopback 6", "link-local", "none", "odd", "tailnet", "tailnet 2", "only tailnet"],
)
def test_resolvers(host: Host, lines: tuple[str, ...], forward: bool) -> None:
    assert namespace.resolvers(host) == Resolvers(lines, forward)


def test_the_real_host_can_be_read() -> None:
    assert isinstance(namespace.resolvers(), Resolvers)


def test_an_isolated_session_has_no_resolver_but_its_control_servers_address() -> None:
    found = Resolvers(("nameserver 10.0.0.1", "search home"), forward=True).isolated("http://localhost:8080")
    assert found.lines == ("search home",)
    assert not found.forward
    assert "127.0.0.1 localhost" in found.hosts
    assert namespace.isolated_hosts("http://10.77.0.1:8080") == ()  # an address needs no name


# --- /etc ------------------------------------------------------------------------------------------------------------------


def test_the_layer_over_etc(tmp_path: Path) -> None:
    namespace.seed(str(tmp_path), Resolvers(("nameserver 10.0.0.1", "search home"), forward=False))
    upper = tmp_path / "etc/upper"
    # tailscaled takes a comment that names a resolver program for its signature.
    assert (upper / "resolv.conf").read_text() == "nameserver 10.0.0.1\nsearch home\n"
    lines = (upper / "nsswitch.conf").read_text().splitlines()
    assert [line for line in lines if line.startswith("hosts:")] == ["hosts: files dns"]
    assert not (upper / "hosts").exists()
    assert (tmp_path / "etc/work").is_dir()
    if Path("/etc/ssh/ssh_config").exists():
        assert (upper / "ssh/ssh_config").read_bytes() == Path("/etc/ssh/ssh_config").read_bytes()


def test_hosts_are_added_to_the_hosts(tmp_path: Path) -> None:
    namespace.seed(str(tmp_path), Resolvers((), forward=False, hosts=("10.0.0.9 control",)))
    text = (tmp_path / "etc/upper/hosts").read_text()
    assert text == f"{Path('/etc/hosts').read_text().rstrip()}\n10.0.0.9 control\n"


def test_values_are_not_scanned_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    template = tmp_path / "template"
    template.write_text("@A@ @B@ a@b.c @lower@")
    monkeypatch.setattr(namespace.paths, "data_file", lambda rel: str(template))
    assert namespace.fill("any", {"A": "@B@", "B": r"\1 @A@"}) == r"@B@ \1 @A@ a@b.c @lower@"
