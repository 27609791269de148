"""From results to the tables and charts of README.md, and to what was reached of what was promised."""

# ruff: noqa: RUF001 - the signs of multiplication and of ranges are meant

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from charts import Bar, chart
from ways import LABELS

if TYPE_CHECKING:
    from collections.abc import Callable

HERE = Path(__file__).resolve().parent
BEGIN, END = "<!-- results: written by benchmarks/run -->", "<!-- end of results -->"
Results = dict[str, Any]


def write(results: Results) -> None:
    """README.md between its markers, and the charts."""
    page = HERE / "README.md"
    before, _, rest = page.read_text().partition(BEGIN)
    after = rest.partition(END)[2]
    page.write_text(f"{before}{BEGIN}\n\n{text(results)}\n{END}{after}")
    for name, svg in charts(results).items():
        (HERE / name).write_text(svg)


def text(results: Results) -> str:
    """All tables that there are results for, as Markdown."""
    tables = [_about(results["about"]), _targets(results)]
    makers: dict[str, Callable[[Results], str]] = {
        "tailnet": _tailnet,
        "internet": _internet,
        "joining": _joining,
        "lives": _lives,
        "crowds": _crowds,
    }
    tables += [make(results[part]) for part, make in makers.items() if part in results]
    return "\n".join(tables)


def _about(about: Results) -> str:
    facts = (
        "processor",
        "kernel",
        "tailscale",
        "pasta",
        "python",
        "util-linux",
        "iperf3",
        "congestion control",
        "commit",
    )
    quick = "**A quick run: a smoke test, no measurement.** " if about["quick"] else ""
    quick += "**Parts come from different runs.** " if about.get("mixed") else ""
    load = f"load {about['load_before']:.1f} before, {about.get('load_after', 0):.1f} after"
    words = "; ".join(f"{fact} {about[fact]}" for fact in facts)
    return f"{quick}Measured on {about['date']} in {about.get('took_seconds', 0)} s, {load}. {words}.\n"


# --- targets --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Target:
    """What must be measured: `found` from the results must be at least or at most `limit`."""

    what: str
    part: str
    found: Callable[[Results], float]
    limit: float | Callable[[Results], float]
    least: bool = False
    unit: str = "×"


def median(values: Results, row: str) -> float:
    """The median of one row."""
    return float(values[row]["median"])


def _ratio(row: str, base: str, factor: float = 1.0) -> Callable[[Results], float]:
    return lambda values: median(values, row) / max(1e-9, median(values, base) * factor)


TARGETS = (
    Target("TCP up, host underlay : root", "tailnet", _ratio("host.tcp.up", "root.tcp.up"), 0.9, least=True),
    Target("TCP down, host underlay : root", "tailnet", _ratio("host.tcp.down", "root.tcp.down"), 0.9, least=True),
    Target("TCP up, host : pasta underlay", "tailnet", _ratio("host.tcp.up", "pasta.tcp.up"), 3, least=True),
    Target("TCP down, host : pasta underlay", "tailnet", _ratio("host.tcp.down", "pasta.tcp.down"), 3, least=True),
    Target(
        "RTT p50 idle, UDP, host underlay : root",
        "tailnet",
        _ratio("host.rtt.udp.idle.p50", "root.rtt.udp.idle.p50"),
        1.1,
    ),
    Target(
        "RTT p50 idle, TCP, host underlay : root",
        "tailnet",
        _ratio("host.rtt.tcp.idle.p50", "root.rtt.tcp.idle.p50"),
        1.1,
    ),
    Target("`join` : the two nsenter, each typed in bash", "joining", _ratio("shell join", "shell typed"), 1.25),
    Target(
        "`tsenv exec true` less bare Python less `join`",
        "joining",
        lambda v: median(v, "tsenv exec") - median(v, "python -c pass") - median(v, "join"),
        5,
        unit="ms",
    ),
    Target("a shim : the two nsenter by hand", "joining", _ratio("shim", "two nsenter"), 1.5),
    Target('`eval "$(tsenv activate)"` : bare Python', "joining", _ratio("shell activate", "shell python"), 3),
    *(
        Target(
            f"a prompt with the hook, activated, {shell}: more than without",
            "joining",
            lambda v, s=shell: median(v, f"prompt.{s}.hook.active") - median(v, f"prompt.{s}.plain"),
            0.5,
            unit="ms",
        )
        for shell in ("bash", "zsh", "fish")
    ),
    Target("`up` : by hand", "lives", _ratio("tsenv.up", "by-hand.up"), 1.25),
    Target("`up` : the tsexec-like script", "lives", _ratio("tsenv.up", "tsexec-like.up"), 1),
    Target("the supervisor's memory (PSS)", "crowds", lambda v: median(v, "tsenv.1.pss_supervisor"), 25, unit="MB"),
    Target("the supervisor's wake-ups a second, idle", "crowds", lambda v: median(v, "tsenv.1.wakeups"), 0, unit="/s"),
    Target(
        "16 sessions at once: time to ready of all : 16 × one",
        "crowds",
        _ratio("tsenv.16.ready_all", "tsenv.1.ready_all", 16),
        1,
    ),
)


def _targets(results: Results) -> str:
    rows = []
    for target in TARGETS:
        if target.part not in results:
            continue
        try:
            found = target.found(results[target.part])
        except KeyError:  # the quick form measures less
            continue
        limit = target.limit if isinstance(target.limit, (int, float)) else target.limit(results[target.part])
        # Rounded as shown: 0.04 wake-ups in ten seconds of one are none.
        met = round(found, 2) >= limit if target.least else round(found, 2) <= limit
        sign = "≥" if target.least else "≤"
        shown = f"{_figure(found)} {target.unit}"
        rows.append([target.what, f"{sign} {limit:g} {target.unit}", shown, "met" if met else "**missed**"])
    return _table("What must be reached", ["", "target", "measured", ""], rows)


# --- tables ---------------------------------------------------------------------------------------------------------


def _table(title: str, heads: list[str], rows: list[list[str]]) -> str:
    lines = [
        f"### {title}",
        "",
        "| " + " | ".join(heads) + " |",
        "|" + "|".join(["---"] + ["--:"] * (len(heads) - 1)) + "|",
    ]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows]) + "\n"


def _figure(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def _cell(values: Results, row: str, base: str = "") -> str:
    """Median, quartiles, ratio to the baseline's median."""
    if row not in values or values[row]["median"] is None:
        return "–"
    found = values[row]
    cell = _figure(found["median"])
    if found["n"] > 1:
        cell += f" ({_figure(found['q1'])}–{_figure(found['q3'])})"
    if base and base != row and values.get(base, {}).get("median"):
        cell += f" · {found['median'] / values[base]['median']:.2f}×"
    return cell


def _tailnet(values: Results) -> str:
    columns = {
        "TCP up, Gbit/s": "tcp.up",
        "TCP down, Gbit/s": "tcp.down",
        "CPU s/GB up": "cpu.up",
        "CPU s/GB down": "cpu.down",
    }
    trips = {
        "UDP idle p50": "rtt.udp.idle.p50",
        "UDP idle p99": "rtt.udp.idle.p99",
        "TCP idle p50": "rtt.tcp.idle.p50",
        "TCP idle p99": "rtt.tcp.idle.p99",
        "TCP under load p50": "rtt.tcp.load.p50",
        "p99": "rtt.tcp.load.p99",
    }
    rates = sorted({row.split(".")[3] for row in values if ".udp." in row and ".rtt." not in row}, key=_rate)
    udp = {f"{word} {rate}, Gbit/s, loss %": f"udp.{word}.{rate}" for word in ("up", "down") for rate in rates}
    lines = [
        _table(
            "Over the tailnet: throughput and what it costs",
            ["", *columns],
            [[LABELS[way], *(_cell(values, f"{way}.{c}", f"root.{c}") for c in columns.values())] for way in LABELS],
        ),
        _table(
            "Over the tailnet: round trips, ms",
            ["", *trips],
            [[LABELS[way], *(_cell(values, f"{way}.{c}", f"root.{c}") for c in trips.values())] for way in LABELS],
        ),
        _table(
            "Over the tailnet: UDP at fixed rates (packets of 1200 bytes)",
            ["", *udp],
            [[LABELS[way], *(_udp_cell(values, f"{way}.{c}", f"root.{c}") for c in udp.values())] for way in LABELS],
        ),
    ]
    return "\n".join(lines)


def _rate(text: str) -> float:
    return float(text[:-1]) * {"M": 1, "G": 1000}[text[-1]]


def _udp_cell(values: Results, row: str, base: str) -> str:
    if f"{row}.gbits" not in values:
        return "–"
    return f"{_cell(values, f'{row}.gbits', f'{base}.gbits')}, {_figure(median(values, f'{row}.lost'))} %"


INTERNET_LABELS = {
    "host": "host",
    "plain": "pasta's defaults",
    "tsenv": "tsenv (pasta, tuned)",
}


def _internet(values: Results) -> str:
    names = dict.fromkeys(row.rpartition(".")[0] for row in values)
    rows = [
        [INTERNET_LABELS.get(name, name), *(_cell(values, f"{name}.{way}", f"host.{way}") for way in ("up", "down"))]
        for name in names
    ]
    return _table("Commands' own internet traffic, Gbit/s", ["", "up", "down"], rows)


def _joining(values: Results) -> str:
    bases = {
        "tsenv exec": "python -c pass",
        "tsenv shell": "python -c pass",
        "sh": "",
        "true": "",
        "python -c pass": "",
        "nsenter -U -n -m": "",
        "shell activate": "shell python",
        "shell python": "",
        "shell typed": "",
        "shell join": "shell typed",
    }
    rows = []
    for row in values:
        if row.startswith("prompt"):
            base = f"{row.rpartition('.')[0].partition('.hook')[0]}.plain"
            base = "" if row == base else base
        else:
            base = bases.get(row, "nsenter -U -n -m")
        rows.append([f"`{row}`", _cell(values, row), _against(values, row, base)])
    return _table("Joining a session, and the shell, ms", ["", "ms", "against"], rows)


def _against(values: Results, row: str, base: str) -> str:
    return f"{median(values, row) / median(values, base):.2f}× `{base}`" if base else ""


LIVES = {
    "by-hand": "by hand, as fast as the programs allow",
    "tsexec-like": "a script like tsexec, looking every 0.1 s",
    "tsenv": "tsenv",
    "tsenv pasta": "tsenv --underlay pasta",
}


def _lives(values: Results) -> str:
    verbs = {"up to ready": "up", "run -- true": "run", "down": "down"}
    rows = [
        [label, *(_cell(values, f"{who}.{v}", f"by-hand.{v}") for v in verbs.values())] for who, label in LIVES.items()
    ]
    return _table("A session's life, ms", ["", *verbs], rows)


def _crowds(values: Results) -> str:
    columns = {
        "all ready, ms": "ready_all",
        "PSS a session, MB": "pss_session",
        "of it tailscaled": "pss_tailscaled",
        "of it supervisor": "pss_supervisor",
        "idle CPU a session, %": "idle_cpu_percent",
        "supervisor's wake-ups/s": "wakeups",
    }
    counts = dict.fromkeys(int(row.split(".")[1]) for row in values)
    rows = [
        [
            f"{count} × {LIVES[who] if who == 'tsenv' else 'by hand (bare tailscaled and pasta)'}",
            *(_cell(values, f"{who}.{count}.{c}", f"by-hand.{count}.{c}") for c in columns.values()),
        ]
        for count in counts
        for who in ("by-hand", "tsenv")
    ]
    return _table("Sessions at once, idle", ["", *columns], rows)


# --- charts ---------------------------------------------------------------------------------------------------------


def charts(results: Results) -> dict[str, str]:
    """File name → SVG."""
    found = {}
    quick = results["about"]["quick"]
    if "tailnet" in results:
        groups = _groups(results["tailnet"], LABELS, "tcp", {"upload": "up", "download": "down"})
        found["throughput.svg"] = chart("TCP over the tailnet, Gbit/s", _note("more is better", quick=quick), groups)
        shares = {"idle, median": "idle.p50", "under an upload, median": "load.p50"}
        groups = _groups(results["tailnet"], LABELS, "rtt.tcp", shares)
        found["latency.svg"] = chart("Round trips over the tailnet, ms", _note("less is better", quick=quick), groups)
    if "lives" in results:
        groups = _groups(results["lives"], SHORT, "", {"up to ready": "up", "run -- true": "run", "down": "down"})
        found["life.svg"] = chart("A session's life, ms", _note("less is better", quick=quick), groups)
    if "joining" in results:
        rows = ("nsenter -U -n -m", "two nsenter", "join", "shim", "python -c pass", "tsenv exec")
        kinds = ["ours" if row in OURS else "base" for row in rows]
        pairs = zip(rows, kinds, strict=True)
        bars = [_bar_of(results["joining"], row, rows[0], row, kind) for row, kind in pairs]
        found["joining.svg"] = chart("One command in a session, ms", _note("less is better", quick=quick), [("", bars)])
    return found


def _groups(values: Results, labels: dict[str, str], what: str, kinds: dict[str, str]) -> list[tuple[str, list[Bar]]]:
    """A group of bars for each kind, a bar for each contestant; the first contestant is the baseline."""
    base = next(iter(labels))
    found = []
    for title, key in kinds.items():
        end = ".".join(part for part in (what, key) if part)
        bars = [_bar_of(values, f"{who}.{end}", f"{base}.{end}", label, _kind(who)) for who, label in labels.items()]
        found.append((title, bars))
    return found


SHORT = {"by-hand": "by hand", "tsexec-like": "script like tsexec", "tsenv": "tsenv"}
OURS = ("join", "shim", "tsenv exec")


def _note(text: str, *, quick: bool) -> str:
    text = f"A SMOKE TEST, NO MEASUREMENT; {text}" if quick else text
    return f"{text}; median, the line spans the quartiles; × is against the first bar of its group"


def _kind(who: str) -> str:
    return {"root": "base", "by-hand": "base", "host": "ours", "tsenv": "ours"}.get(who, "other")


def _bar_of(values: Results, row: str, base: str, label: str, kind: str) -> Bar:
    found = values.get(row, {"median": 0, "q1": 0, "q3": 0})
    under = values.get(base, found)["median"] or 1
    text = _figure(found["median"]) + ("" if row == base else f"  ({found['median'] / under:.2f}×)")
    return Bar(label, found["median"], found["q1"], found["q3"], kind, text)
