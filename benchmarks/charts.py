"""Bar charts as SVG: plain text, no library, readable on light and on dark paper."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape

WIDTH, LABEL, LINE, HEAD = 800, 280, 22, 54
STYLE = """
text{font:13px system-ui,-apple-system,'Segoe UI',Helvetica,Arial,sans-serif;fill:#1f2328}
.head{font-size:15px;font-weight:600}.note{fill:#59636e;font-size:12px}
.paper{fill:#fff}.base{fill:#8c959f}.ours{fill:#1f6feb}.other{fill:#bf8700}.spread{stroke:#1f2328;stroke-width:1.4}
@media(prefers-color-scheme:dark){text{fill:#e6edf3}.note{fill:#9198a1}.paper{fill:#0d1117}.base{fill:#6e7681}.ours{fill:#4493f8}
.other{fill:#d29922}.spread{stroke:#e6edf3}}
"""


@dataclass(frozen=True)
class Bar:
    """One bar: value with the quartiles beside it; `kind` is base, ours or other."""

    label: str
    value: float
    low: float
    high: float
    kind: str
    text: str


def chart(title: str, note: str, groups: list[tuple[str, list[Bar]]]) -> str:
    """The SVG text: groups of bars on one scale, the quartiles as a line at each bar's end."""
    most = max((bar.high for _, bars in groups for bar in bars), default=1.0) or 1.0
    room = WIDTH - LABEL - 130
    parts, y = [], HEAD
    for name, bars in groups:
        if name:
            y += 8
            parts.append(f'<text x="0" y="{y + 13}" class="note">{escape(name)}</text>')
            y += LINE
        for bar in bars:
            parts += _bar(bar, y, room / most)
            y += LINE
    size = f'viewBox="-14 -10 {WIDTH + 28} {y + 28}" width="{WIDTH + 28}" height="{y + 28}"'
    head = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" aria-label="{escape(title)}">',
        f"<style>{STYLE}</style>",
        # Paper of its own: the page may be dark where the reader's system is light.
        f'<rect x="-14" y="-10" width="{WIDTH + 28}" height="{y + 28}" rx="6" class="paper"/>',
        f'<text x="0" y="18" class="head">{escape(title)}</text>',
        f'<text x="0" y="38" class="note">{escape(note)}</text>',
    ]
    return "\n".join([*head, *parts, "</svg>", ""])


def _bar(bar: Bar, y: float, scale: float) -> list[str]:
    length, low, high = (round(LABEL + value * scale, 1) for value in (bar.value, bar.low, bar.high))
    middle = y + 8
    return [
        f'<text x="{LABEL - 8}" y="{y + 13}" text-anchor="end">{escape(bar.label)}</text>',
        f'<rect x="{LABEL}" y="{y + 1}" width="{max(1.0, length - LABEL):.1f}" height="15" rx="2" class="{bar.kind}"/>',
        f'<path d="M{low} {middle}H{high}M{low} {middle - 3}v6M{high} {middle - 3}v6" class="spread" fill="none"/>',
        f'<text x="{max(length, high) + 8}" y="{y + 13}">{escape(bar.text)}</text>',
    ]
