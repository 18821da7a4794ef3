"""The chart: CPU per delivery and memory per parked client, as an SVG that reads on light and on dark pages."""

from collections.abc import Sequence
from html import escape
from statistics import median

from bench import duels
from bench.figures import Figure
from bench.report import Section
from bench.stage import OURS

WIDTH = 860
LABELS, VALUES = 250, 110
ROW, BAR, TOP, GAP = 25, 16, 46, 48

# Greys and one green of which both GitHub's white and its black keep enough distance.
STYLE = """
text { font: 13px system-ui, -apple-system, "Segoe UI", Helvetica, Arial, sans-serif; fill: #57606a }
.title { font-size: 15px; font-weight: 600; fill: #24292f }
.ours { font-weight: 700; fill: #1a7f37 }
.small { font-size: 11px }
rect { fill: #8c959f }
rect.ours { fill: #2da44e }
@media (prefers-color-scheme: dark) {
  text { fill: #9da7b3 }
  .title { fill: #e6edf3 }
  rect { fill: #6e7681 }
  .ours, rect.ours { fill: #3fb950 }
}
"""

SOURCE = (
    "{clients} clients wait on one topic, in one process (others hold as many as stand beside their name).",
    "Notifier is durable, with Postgres beside it; the others keep messages in memory. Source: make bench",
)


def draw(sections: Sequence[Section]) -> str:
    """Nothing where nothing was measured against a peer."""
    measured = [part for scenario, parts in sections if scenario.name == "parking" for part in parts]
    figures = [figure for part in measured for figure in part.figures if figure.peer]
    panels = [
        panel(f"{title}, {unit}", bars(figures, what), scale)
        for title, what, unit, scale in (
            ("CPU of the server for each delivered message, the next poll included", duels.CPU, "µs", 1.0),
            ("Memory of the server for each parked client, PSS", duels.MEMORY, "kB", 1000.0),
        )
    ]
    if not all(rows for rows, _ in panels):
        return ""
    parts = []
    height = 12
    for lines, tall in panels:
        parts.append(f'<g transform="translate(0 {height})">\n' + "\n".join(lines) + "\n</g>")
        height += tall
    clients = usual([figure for figure in figures if figure.what == duels.CPU])
    for line in SOURCE:
        parts.append(f'<text class="small" x="8" y="{height}">{escape(line.format(clients=clients))}</text>')
        height += 16
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" '
        f'aria-label="CPU per delivery and memory per parked client">\n<style>{STYLE}</style>\n'
        + "\n".join(parts)
        + "\n</svg>\n"
    )


def bars(figures: Sequence[Figure], what: str) -> list[tuple[str, float]]:
    """Names and medians, least first: of each peer at the smallest crowd, which most of them can hold."""
    found = [figure for figure in figures if figure.what == what and figure.theirs and not figure.void]
    first = {figure.peer: figure for figure in reversed(found)}  # sorted by clients, so the smallest remains
    if not first:
        return []
    most = usual(found)
    rows = [
        (name if figure.where == most else f"{name}, {figure.where}", median(figure.theirs))
        for name, figure in first.items()
    ]
    mine = [value for figure in first.values() if figure.where == most for value in figure.ours]
    return sorted([*rows, (OURS, median(mine))], key=lambda row: row[1])


def usual(figures: Sequence[Figure]) -> str:
    """The smallest crowd that is not of a peer that can hold only fewer."""
    first = {figure.peer: figure.where for figure in reversed(figures)}
    return max(first.values(), key=lambda where: int(where.replace(",", "")))


def panel(title: str, rows: Sequence[tuple[str, float]], scale: float) -> tuple[list[str], int]:
    """The elements, and how tall they are. Bars begin at zero and are as long as what they stand for."""
    if not rows:
        return [], 0
    longest = max(value for _, value in rows)
    ours = next(value for name, value in rows if name == OURS)
    lines = [f'<text class="title" x="8" y="20">{escape(title)}</text>']
    for number, (name, value) in enumerate(rows):
        y = TOP + ROW * number
        kind = ' class="ours"' if name == OURS else ""
        bar = max((WIDTH - LABELS - VALUES) * value / longest, 2)
        times = "" if name == OURS else f" ({value / ours:.1f}x)"
        lines += [
            f'<text{kind} x="{LABELS - 10}" y="{y + 5}" text-anchor="end">{escape(name)}</text>',
            f'<rect{kind} x="{LABELS}" y="{y - 7}" width="{bar:.1f}" height="{BAR}" rx="2"/>',
            f'<text{kind} x="{LABELS + bar + 8:.1f}" y="{y + 5}">{_short(value / scale)}{times}</text>',
        ]
    return lines, TOP + ROW * (len(rows) - 1) + GAP


def _short(value: float) -> str:
    return f"{value:.1f}" if value < 100 else f"{value:,.0f}"
