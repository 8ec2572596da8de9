"""Line charts as inline SVG: they need no script, and take their colours from the page."""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

from mmjax.evaluation.page import escape

WIDTH, HEIGHT = 380, 236
LEFT, RIGHT, TOP, BOTTOM = 46, 14, 10, 34
COLOURS = 6  # how many series colours the page's style sheet has


@dataclasses.dataclass(frozen=True)
class Line:
    """One series of a chart.

    Attributes:
        label: its name in the legend; "" keeps it out.
        x: positions, ascending.
        y: values; what is not finite is left out.
        colour: number of the series colour, from 0; they repeat.
        dashed: tells lines of one colour apart, also without colour.
        faint: the raw values behind a smoothed line.
        dots: mark every point, with its value on hovering.
    """

    label: str
    x: Sequence[float]
    y: Sequence[float]
    colour: int = 0
    dashed: bool = False
    faint: bool = False
    dots: bool = False


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Round numbers (1, 2 or 5 times a power of ten) that span ``[low, high]``.

    Args:
        low: smallest value to cover.
        high: largest value to cover.
        count: intervals wanted, at least 1; a few more or fewer come back.

    Returns:
        Equally spaced numbers, the first at most ``low``, the last at least ``high``.

    >>> ticks(0.3, 9.1)
    [0.0, 2.0, 4.0, 6.0, 8.0, 10.0]
    >>> ticks(3.0, 3.0)
    [2.0, 2.5, 3.0, 3.5, 4.0]
    """
    if high <= low:
        margin = abs(low) / 3 or 1.0
        low, high = low - margin, high + margin
    rough = (high - low) / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [float(f"{number * step:.12g}") for number in range(first, last + 1)]


def smoothed(y: Sequence[float], window: int) -> np.ndarray:
    """Centred moving mean, over fewer values at the ends; it does not lag behind the data.

    Args:
        y: values.
        window: how many values a mean spans; an even number counts as the next odd one.

    Returns:
        As many values as ``y``.

    >>> smoothed([0.0, 3.0, 6.0, 0.0], 3)
    array([1.5, 3. , 3. , 3. ])
    """
    ones = np.ones(2 * (window // 2) + 1)
    half = len(ones) // 2
    total = np.convolve(np.asarray(y, np.float64), ones)[half : half + len(y)]
    return total / np.convolve(np.ones(len(y)), ones)[half : half + len(y)]


def thinned(x: np.ndarray, y: np.ndarray, limit: int) -> tuple[np.ndarray, np.ndarray]:
    """At most ``limit`` points that keep every part's lowest and highest: spikes stay visible.

    Args:
        x: positions, ascending.
        y: as many finite values.
        limit: points wanted, at least 2.

    Returns:
        A selection of the points, in order.
    """
    if len(x) <= limit:
        return x, y
    keep: set[int] = set()
    for part in np.array_split(np.arange(len(x)), limit // 2):
        keep |= {int(part[np.argmin(y[part])]), int(part[np.argmax(y[part])])}
    rows = sorted(keep)
    return x[rows], y[rows]


def chart(title: str, lines: Sequence[Line], *, unit: str = "", zero: bool = False) -> str:
    """A figure with axes, ticks and a legend.

    Args:
        title: what is drawn.
        lines: the series, later ones on top.
        unit: of the values; "%" shows fractions as percentages.
        zero: the vertical axis starts at 0.

    Returns:
        A ``<figure>``; "" if no line has a finite value.
    """
    scale = 100.0 if unit == "%" else 1.0
    points = []
    for line in lines:
        x, y = np.asarray(line.x, np.float64), np.asarray(line.y, np.float64) * scale
        keep = np.isfinite(x) & np.isfinite(y)
        points.append(thinned(x[keep], y[keep], 600))
    shown = [(line, x, y) for line, (x, y) in zip(lines, points, strict=True) if len(x)]
    if not shown:
        return ""
    every_x, every_y = (np.concatenate([series[i] for series in shown]) for i in (1, 2))
    y_ticks = ticks(min(0.0, every_y.min()) if zero else every_y.min(), every_y.max(), 5)
    x_ticks = [tick for tick in ticks(0.0, max(every_x.max(), 1.0), 4) if tick.is_integer()]
    frame = _Frame(max(every_x.max(), 1.0), y_ticks[0], y_ticks[-1])
    body = "".join(frame.horizontal(tick) for tick in y_ticks)
    body += "".join(frame.vertical(tick) for tick in x_ticks if tick <= frame.x_high)
    body += "".join(frame.series(line, x, y) for line, x, y in shown)
    last = "; ".join(f"{line.label or title} ends at {y[-1]:.4g}" for line, _, y in shown)
    name = escape(f"{title}{f' ({unit})' if unit else ''} over training steps. {last}.")
    return (
        f'<figure class="chart"><figcaption><strong>{escape(title)}</strong>'
        f"{f' <small>{escape(unit)}</small>' if unit else ''}{_legend(shown)}</figcaption>"
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{name}">{body}'
        f'<text class="axis" x="{WIDTH - RIGHT}" y="{HEIGHT - 4}" text-anchor="end">step</text>'
        "</svg></figure>"
    )


@dataclasses.dataclass(frozen=True)
class _Frame:
    """Where values lie in the drawing; steps start at 0."""

    x_high: float
    y_low: float
    y_high: float

    def x(self, step: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * step / self.x_high

    def y(self, value: float) -> float:
        share = (value - self.y_low) / (self.y_high - self.y_low)
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * share

    def horizontal(self, tick: float) -> str:
        y = self.y(tick)
        return (
            f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
            f'<text x="{LEFT - 7}" y="{y + 4:.1f}" text-anchor="end">{_number(tick)}</text>'
        )

    def vertical(self, tick: float) -> str:
        x, foot = self.x(tick), HEIGHT - BOTTOM
        return (
            f'<line class="tick" x1="{x:.1f}" x2="{x:.1f}" y1="{foot}" y2="{foot + 4}"/>'
            f'<text x="{x:.1f}" y="{foot + 16}" text-anchor="middle">{_number(tick)}</text>'
        )

    def series(self, line: Line, x: np.ndarray, y: np.ndarray) -> str:
        kind = f"s{line.colour % COLOURS}"
        kind += " dashed" * line.dashed + " faint" * line.faint
        places = [(self.x(a), self.y(b)) for a, b in zip(x, y, strict=True)]
        path = " ".join(f"{a:.1f},{b:.1f}" for a, b in places)
        drawn = f'<polyline class="{kind}" points="{path}"/>' if len(places) > 1 else ""
        if line.dots or len(places) == 1:
            for (a, b), step, value in zip(places, x, y, strict=True):
                what = escape(f"{line.label} step {step:,.0f}: {value:.4g}".strip())
                drawn += (
                    f'<circle class="{kind}" cx="{a:.1f}" cy="{b:.1f}" r="2.6">'
                    f"<title>{what}</title></circle>"
                )
        return drawn


def _number(value: float) -> str:
    if value and abs(value) < 1e-2:
        mantissa, exponent = f"{value:.1e}".split("e")
        return f"{mantissa.removesuffix('.0')}e{int(exponent)}"
    return f"{value:,.10g}"


def _legend(shown: Sequence[tuple[Line, np.ndarray, np.ndarray]]) -> str:
    entries = "".join(
        '<span><svg class="swatch" viewBox="0 0 22 8" aria-hidden="true">'
        f'<line class="s{line.colour % COLOURS}{" dashed" * line.dashed}{" faint" * line.faint}"'
        f' x1="1" x2="21" y1="4" y2="4"/></svg>{escape(line.label)}</span>'
        for line, _, _ in shown
        if line.label
    )
    return f'<span class="legend">{entries}</span>' if entries else ""
