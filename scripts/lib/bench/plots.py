"""Plots as SVG, without a library: bars with their spread, and lines."""

import math
from html import escape

from .measuring import Spread

INK, GRID, COLOURS = "#24292f", "#d0d7de", ["#0969da", "#bc4c00", "#1a7f37", "#8250df", "#bf3989", "#57606a"]
FONT = 'font-family="system-ui, sans-serif" font-size="12"'


def page(width: int, height: int, title: str, body: list[str]) -> str:
    return "\n".join([
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" role="img">',
        f"<title>{escape(title)}</title>",
        f'<rect width="{width}" height="{height}" fill="white"/>',
        f'<text x="12" y="20" {FONT} font-weight="bold" fill="{INK}">{escape(title)}</text>',
        *body, "</svg>", ""])  # fmt: skip


def short(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def text(x: float, y: float, words: str, anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" {FONT} fill="{INK}">{escape(words)}</text>'


def bars(title: str, values: dict[str, Spread]) -> str:
    """One bar a subject, from zero; a line from the lowest to the highest measurement."""
    left, width, step = 250, 760, 28
    most = max((value.high for value in values.values()), default=0) or 1
    scale = (width - left - 90) / most
    body = []
    for nth, (name, value) in enumerate(values.items()):
        y = 36 + nth * step
        body += [
            text(left - 8, y + 14, name, "end"),
            f'<rect x="{left}" y="{y}" width="{max(value.median * scale, 1):.1f}" height="18" fill="{COLOURS[nth % len(COLOURS)]}"/>',
            f'<path d="M{left + value.low * scale:.1f} {y + 9}H{left + value.high * scale:.1f}" stroke="{INK}" stroke-width="1.5"/>',
            text(left + value.high * scale + 6, y + 14, short(value.median)),
        ]
    return page(width, 48 + len(values) * step, title, body)


def lines(title: str, x_name: str, series: dict[str, list[tuple[float, float]]], logarithmic: bool = False) -> str:
    """Points joined in order, y from zero; x perhaps by powers of ten."""
    left, top, width, height = 70, 40, 760, 340
    right, bottom = width - 190, height - 46
    points = [point for line in series.values() for point in line]
    if not points:
        return page(width, height, title, [text(left, top + 20, "nothing was measured")])
    place = (lambda x: math.log10(max(x, 1e-9))) if logarithmic else (lambda x: x)
    least_x, most_x = min(place(x) for x, _ in points), max(place(x) for x, _ in points)
    most_y = max(y for _, y in points) * 1.08 or 1
    at_x = lambda x: left + (place(x) - least_x) / ((most_x - least_x) or 1) * (right - left)
    at_y = lambda y: bottom - y / most_y * (bottom - top)
    body = []
    for nth in range(6):
        y = most_y * nth / 5
        body += [f'<path d="M{left} {at_y(y):.1f}H{right}" stroke="{GRID}"/>', text(left - 6, at_y(y) + 4, short(y), "end")]
    ticks = sorted({x for x, _ in points}) if len({x for x, _ in points}) <= 8 else [place_back(least_x + (most_x - least_x) * nth / 5, logarithmic) for nth in range(6)]
    body += [text(at_x(x), bottom + 18, short(x), "middle") for x in ticks]
    body.append(text((left + right) / 2, bottom + 38, x_name, "middle"))
    for nth, (name, line) in enumerate(series.items()):
        colour = COLOURS[nth % len(COLOURS)]
        path = " ".join(f"{'M' if first == 0 else 'L'}{at_x(x):.1f} {at_y(y):.1f}" for first, (x, y) in enumerate(line))
        body.append(f'<path d="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        if len(line) <= 24:
            body += [f'<circle cx="{at_x(x):.1f}" cy="{at_y(y):.1f}" r="3" fill="{colour}"/>' for x, y in line]
        body += [f'<rect x="{right + 14}" y="{top + nth * 20}" width="12" height="12" fill="{colour}"/>', text(right + 32, top + nth * 20 + 10, name)]
    return page(width, height, title, body)


def place_back(x: float, logarithmic: bool) -> float:
    return 10**x if logarithmic else x
