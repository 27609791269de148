"""Traffic over the tailnet and to the internet, by every way, in turns."""

from __future__ import annotations

import contextlib
import subprocess
from collections import defaultdict
from typing import TYPE_CHECKING, Any

import ways
from measure import Flow, MeasurementError, cpu_seconds, iperf_argv, round_trips, server, spread, transfer

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from lab import Lab
    from plan import Plan
    from ways import Way

PORT = 5390  # of the servers that we start on the peers
INTERNET = "203.0.113.4"
Values = dict[str, list[float]]


def tailnet(lab: Lab, plan: Plan) -> dict[str, Any]:
    """TCP both ways, UDP at fixed rates, round trips idle and under load, processor time: by each way."""
    address = ways.peer_address(lab)
    values: Values = defaultdict(list)
    with contextlib.ExitStack() as stack:
        all_ways = [
            stack.enter_context(ways.root(lab)),
            stack.enter_context(ways.tsenv(lab, "host")),
            stack.enter_context(ways.tsenv(lab, "pasta")),
            stack.enter_context(ways.socks(lab)),
        ]
        for way in all_ways:
            state = {"root": f"{ways.BENCH}/state-root/sock", "socks": f"{ways.BENCH}/state-socks/sock"}.get(way.name)
            own = state or f"{ways.folder(way.machine, f'bench-{way.name}')}/tailscaled.sock"
            ways.await_direct(way, address, own)
        for _ in range(plan.rounds):
            for way in all_ways:
                _tcp(lab, way, address, plan, values)
        for _ in range(plan.trip_rounds):
            for way in all_ways:
                _trips(lab, way, address, plan, values)
        for _ in range(plan.udp_rounds):
            for way in all_ways:
                if way.name != "socks":  # SOCKS by proxychains knows no UDP
                    _udp(lab, way, address, plan, values)
    return {name: spread(found) for name, found in values.items()}


def _tcp(lab: Lab, way: Way, address: str, plan: Plan, values: Values) -> None:
    for down in (False, True):
        before = cpu_seconds(way.daemons)
        flow = transfer(lab.my_server, PORT, address, way.run, plan.seconds, down=down)
        used = cpu_seconds(way.daemons) - before
        word = "down" if down else "up"
        values[f"{way.name}.tcp.{word}"].append(flow.gbits)
        values[f"{way.name}.cpu.{word}"].append(used / (flow.size / 1e9))


def _udp(lab: Lab, way: Way, address: str, plan: Plan, values: Values) -> None:
    for down in (False, True):
        for rate in plan.rates:
            flow = transfer(lab.my_server, PORT, address, way.run, plan.udp_seconds, down=down, rate=rate)
            word = f"{way.name}.udp.{'down' if down else 'up'}.{rate}"
            values[f"{word}.gbits"].append(flow.gbits)
            values[f"{word}.lost"].append(flow.lost * 100)


def _trips(lab: Lab, way: Way, address: str, plan: Plan, values: Values) -> None:
    for kind in ("tcp",) if way.name == "socks" else ("udp", "tcp"):
        _note(values, f"{way.name}.rtt.{kind}.idle", _echo(lab, way, address, kind, plan.trip_seconds))
    with _load(lab, way, address, plan.trip_seconds + 3):
        _note(values, f"{way.name}.rtt.tcp.load", _echo(lab, way, address, "tcp", plan.trip_seconds))


def _echo(lab: Lab, way: Way, address: str, kind: str, seconds: float) -> dict[str, float]:
    return round_trips(lab.my_server, PORT + 1, address, way.run, kind, seconds)


def _note(values: Values, name: str, found: dict[str, float]) -> None:
    for share in ("p50", "p99"):
        values[f"{name}.{share}"].append(found[share])


@contextlib.contextmanager
def _load(lab: Lab, way: Way, address: str, seconds: float) -> Any:
    """An upload as fast as it goes, for as long as the block runs."""
    argv = ["iperf3", "--server", "--one-off", "--forceflush", "--port", str(PORT + 2)]
    with server(lab.my_server, argv, "listening"):
        argv = [*way.prefix, *iperf_argv(address, PORT + 2, round(seconds), down=False)]
        child = way.machine.popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            yield
        finally:
            child.terminate()
            child.wait()


# --- the internet -----------------------------------------------------------------------------------------------------

CLOSED = ["--config-net", "--quiet", "--no-map-gw", "-t", "none", "-u", "none", "-T", "none", "-U", "none"]


def internet(lab: Lab, plan: Plan) -> dict[str, Any]:
    """Commands' own traffic, which pasta carries: the host's own, pasta as it is, and as tsenv sets it."""
    where = ways.machine(lab, "bench-user")
    values: Values = defaultdict(list)
    with ways.tsenv(lab, "host") as inside:
        runs: dict[str, list[str]] = {
            "host": [],
            "plain": ["pasta", *CLOSED, "--"],
            "tsenv": inside.prefix,
        }
        if plan.tuning:
            runs |= {name: ["pasta", *CLOSED, *options, "--", *_after(pre)] for name, options, pre in TUNINGS}
        for _ in range(plan.rounds):
            for name, prefix in runs.items():
                for down in (False, True):
                    flow = _internet_flow(lab, where, prefix, plan, down=down)
                    values[f"{name}.{'down' if down else 'up'}"].append(flow.gbits)
    return {name: spread(found) for name, found in values.items()}


def _internet_flow(lab: Lab, where: Any, prefix: Sequence[str], plan: Plan, *, down: bool) -> Flow:
    run: Callable[[Sequence[str], float], str] = ways.Way("internet", where, list(prefix)).run
    try:
        return transfer(lab.internet, PORT + 3, INTERNET, run, plan.internet_seconds, down=down)
    except MeasurementError as error:
        # Old pastas lose connections now and then: that is a measurement, too.
        if "unable to receive control message" in str(error):
            return Flow(0.0, 0.0, 0)
        raise


def _after(commands: str) -> list[str]:
    """Run `commands` as pasta's fake root, then the rest of the argv."""
    return ["sh", "-c", f'{commands} exec "$@"', "sh"] if commands else []


_ROUTE = "ip route change $(ip route show default) mtu {} advmss 65460 {};"
_QUEUE = "ip link set eth0 txqueuelen 10000;"
_CUBIC = "congctl cubic"
# (name, options of pasta, what is done inside): what else was tried, for --tuning.
TUNINGS = (
    ("mtu 1500", ["--mtu", "1500"], ""),
    ("mtu 4096", ["--mtu", "4096"], ""),
    ("mtu 9000", ["--mtu", "9000"], ""),
    ("mtu 16384", ["--mtu", "16384"], ""),
    ("mtu 32768", ["--mtu", "32768"], ""),
    ("queue", [], _QUEUE),
    ("mtu 1500, queue", ["--mtu", "1500"], _QUEUE),
    ("cubic", [], _ROUTE.format(65520, _CUBIC)),
    ("cubic, queue", [], _ROUTE.format(65520, _CUBIC) + _QUEUE),
    ("route 1500, queue", [], _ROUTE.format(1500, "") + _QUEUE),
    ("route 1500, queue, rto_min", [], _ROUTE.format(1500, "rto_min 20ms") + _QUEUE),
    ("route 1500, cubic", [], _ROUTE.format(1500, _CUBIC)),
    ("route 1500, cubic, queue", [], _ROUTE.format(1500, _CUBIC) + _QUEUE),
    ("route 4096, cubic, queue", [], _ROUTE.format(4096, _CUBIC) + _QUEUE),
    ("route 9000, cubic, queue", [], _ROUTE.format(9000, _CUBIC) + _QUEUE),
    ("route 1500, reno, queue", [], _ROUTE.format(1500, "congctl reno") + _QUEUE),
    ("send buffer 1M", [], "echo 4096 16384 1048576 >/proc/sys/net/ipv4/tcp_wmem;"),
)
