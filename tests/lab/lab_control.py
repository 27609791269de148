"""The lab's control servers: two real headscales, and tailscale's test server for faults they will not show."""

from __future__ import annotations

import contextlib
import json
import re
import signal
import tempfile
import urllib.parse
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import lab_state
from lab_state import BIN, FOLDER, Process

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

ADDRESS = "10.77.0.1"
DERP_PORT = 3443
STUN_PORT = 3478
IN_NET = ("nsenter", "--net=/run/netns/tsl-net", "--")

# Nothing of the public internet; ephemeral nodes that vanish without a logout go after the least that it allows (> 65 s).
HEADSCALE = """
server_url: {url}
listen_addr: 0.0.0.0:{port}
metrics_listen_addr: ""
grpc_listen_addr: 127.0.0.1:{grpc}
noise: {{private_key_path: {folder}/noise.key}}
prefixes: {{v4: 100.64.0.0/10, v6: "fd7a:115c:a1e0::/48", allocation: sequential}}
derp:
  server: {{enabled: false}}
  urls: []
  paths: [{derp}]
  auto_update_enabled: false
disable_check_updates: true
node: {{expiry: 0, ephemeral: {{inactivity_timeout: 66s}}}}
database: {{type: sqlite, sqlite: {{path: {folder}/db.sqlite, write_ahead_log: true}}}}
log: {{level: info, format: text}}
policy: {{mode: database}}
dns:
  magic_dns: true
  base_domain: {domain}
  override_local_dns: false
  nameservers: {{global: []}}
unix_socket: {folder}/headscale.sock
unix_socket_permission: "0700"
logtail: {{enabled: false}}
# Its waits for changes to gather suit thousands of nodes; here each is pure delay (a login: 2 s instead of 0.3).
tuning: {{batch_change_delay: 5ms, node_store_batch_timeout: 5ms}}
"""

DERP_MAP = f"""
regions:
  900:
    regionid: 900
    regioncode: lab
    regionname: Lab
    nodes:
      - {{name: 900a, regionid: 900, hostname: {ADDRESS}, ipv4: {ADDRESS}, ipv6: none,
         derpport: {DERP_PORT}, stunport: {STUN_PORT}, insecurefortests: true}}
"""


@dataclass(frozen=True)
class Node:
    """A machine as the control server knows it. ``given_name`` is its DNS label, ``name`` what it calls itself."""

    id: int
    name: str
    given_name: str
    addresses: tuple[str, ...]
    online: bool
    tags: tuple[str, ...]
    approved_routes: tuple[str, ...]


@dataclass(frozen=True)
class Control:
    """One headscale: its own tailnet."""

    name: str  # "a" or "b"
    port: int
    host: str  # as clients write it

    @property
    def url(self) -> str:
        """The login server's URL, by address.

        Towards plain http on a *name* tailscaled tries nothing but port 443 for two minutes after it had to dial again.
        """
        return f"http://{ADDRESS}:{self.port}"

    @property
    def name_url(self) -> str:
        """The same by a name, which resolves on machines that have a resolver."""
        return f"http://{self.host}:{self.port}"

    @property
    def domain(self) -> str:
        """The MagicDNS domain of the tailnet."""
        return f"tail-{self.name}.test"

    @property
    def folder(self) -> Path:
        """Where it keeps its configuration, database and socket."""
        return FOLDER / f"headscale-{self.name}"

    def launch(self) -> Process:
        """Start it and return at once; ``wait`` waits."""
        if not self.folder.exists():
            self.folder.mkdir()
            derp = self.folder / "derp.yaml"
            derp.write_text(DERP_MAP)
            (self.folder / "config.yaml").write_text(
                HEADSCALE.format(
                    url=self.url,
                    port=self.port,
                    grpc=self.port + 1000,
                    folder=self.folder,
                    domain=self.domain,
                    derp=derp,
                )
            )
        return lab_state.spawn(
            f"headscale-{self.name}", [*IN_NET, BIN / "headscale", "-c", self.folder / "config.yaml", "serve"]
        )

    def wait(self, process: Process) -> None:
        """Wait until it serves."""
        lab_state.wait_for_line(process, "listening and serving HTTP")
        lab_state.wait_until(f"{self.url} to open its socket", (self.folder / "headscale.sock").exists)

    def cli(self, *words: str) -> Any:
        """Run the headscale command line and return the JSON it answers."""
        answer = lab_state.sh(BIN / "headscale", "-c", self.folder / "config.yaml", "-o", "json", "--force", *words)
        # Some commands answer in words all the same.
        return json.loads(answer) if answer[:1] in ("{", "[") else None

    def auth_key(
        self,
        *,
        ephemeral: bool = True,
        reusable: bool = False,
        tags: Sequence[str] = (),
        expiration: str = "1h",
    ) -> str:
        """Make a key to join with. ``tags`` like "tag:ci"; ``expiration`` like "1h" or "1s"."""
        words = ["preauthkeys", "create", "--expiration", expiration]
        words += ["--ephemeral"] if ephemeral else []
        words += ["--reusable"] if reusable else []
        # A tagged key belongs to no user.
        words += ["--tags", ",".join(tags)] if tags else ["--user", "1"]
        return str(self.cli(*words)["key"])

    def nodes(self) -> list[Node]:
        """List all nodes that it knows."""
        return [
            Node(
                id=int(entry["id"]),
                name=entry["name"],
                given_name=entry.get("given_name", ""),
                addresses=tuple(entry.get("ip_addresses") or ()),
                online=bool(entry.get("online")),
                tags=tuple(entry.get("tags") or ()),
                approved_routes=tuple(entry.get("approved_routes") or ()),
            )
            for entry in self.cli("nodes", "list") or []
        ]

    def find(self, name: str) -> Node | None:
        """Return the node of that DNS label or own name, if there is one."""
        return next((node for node in self.nodes() if name in (node.given_name, node.name)), None)

    def expire(self, node: Node) -> None:
        """Make the node's key invalid: it must log in again."""
        self.cli("nodes", "expire", "-i", str(node.id))

    def delete(self, node: Node) -> None:
        """Remove the node."""
        self.cli("nodes", "delete", "-i", str(node.id))

    def approve_routes(self, node: Node, routes: Sequence[str]) -> None:
        """Let the node route these prefixes, and no others."""
        self.cli("nodes", "approve-routes", "-i", str(node.id), "-r", ",".join(routes))

    def register(self, login_url: str) -> None:
        """Do what a person does at the URL that ``tailscale up`` shows: accept the node."""
        self.cli("auth", "register", "--user", "lab", "--auth-id", login_url.rstrip("/").rpartition("/")[2])

    def set_policy(self, policy: dict[str, Any]) -> None:
        """Set the tailnet's policy; ``{}`` is not "everything": that is ``{"acls": [{… "*" …}]}``."""
        with tempfile.NamedTemporaryFile("w", suffix=".json", dir=self.folder) as file:
            json.dump(policy, file)
            file.flush()
            self.cli("policy", "set", "-f", file.name)

    def process(self) -> Process:
        """Return its process."""
        return lab_state.find_process(f"headscale-{self.name}")

    def stop(self) -> None:
        """End the server; its data stays."""
        lab_state.retire([self.process()])

    def start(self) -> None:
        """Start it again with its data."""
        self.wait(self.launch())

    def restart(self) -> None:
        """Stop and start."""
        self.stop()
        self.start()

    def pause(self) -> None:
        """Make it hang: connections open, nothing is answered."""
        self.process().signal(signal.SIGSTOP)

    def resume(self) -> None:
        """End a pause."""
        self.process().signal(signal.SIGCONT)


CONTROL_A = Control("a", 8080, "control.lab.test")
CONTROL_B = Control("b", 8081, "control-b.lab.test")


@dataclass(frozen=True)
class TestControl:
    """A running test control server."""

    __test__ = False  # no test class, whatever pytest thinks

    url: str
    process: Process

    def nodes(self) -> list[dict[str, Any]]:
        """List its nodes, as tailcfg.Node."""
        nodes: list[dict[str, Any]] | None = json.loads(self._order("nodes"))
        return nodes or []

    def complete_auth(self, login_url: str) -> None:
        """Accept the login that ``tailscale up`` shows a URL for."""
        self._order("complete-auth", "--data", f"url={urllib.parse.quote(login_url, safe='')}")

    def approve_all(self) -> None:
        """Approve every machine that waits for it."""
        self._order("approve", "--request", "POST")

    def _order(self, order: str, *options: str) -> str:
        address = re.sub("//[^:]+", f"//{ADDRESS}", self.url)
        return lab_state.sh(*IN_NET, "curl", "-fsS", "--max-time", "10", *options, f"{address}/lab/{order}")


@contextlib.contextmanager
def testcontrol(port: int, **flags: str | int | bool) -> Iterator[TestControl]:
    """Run a test control server; flags are those of tests/lab/go/tailnet/control, with _ for -."""
    url = f"http://control.lab.test:{port}"
    argv: list[str | Path] = [*IN_NET, BIN / "tsenv-lab-control", f"-listen=0.0.0.0:{port}", f"-url={url}"]
    argv += [f"-derp-host={ADDRESS}", f"-derp-port={DERP_PORT}", f"-stun-port={STUN_PORT}"]
    argv += [
        f"-{name.replace('_', '-')}={str(value).lower() if isinstance(value, bool) else value}"
        for name, value in flags.items()
    ]
    process = lab_state.spawn(f"testcontrol-{port}", argv)
    try:
        lab_state.wait_for_line(process, "^ready$")
        yield TestControl(url, process)
    finally:
        lab_state.retire([process])
