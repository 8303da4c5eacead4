"""Geometry of the pages' pictures. Templates draw them as inline SVG: no script, no style attribute, no request."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from backend.rounds.arms import ArmCurve, ComparisonView
from backend.web.views.models import CurvePoint
from backend.web.views.projects import Counts

WIDTH, HEIGHT = 640, 280
_LEFT, _RIGHT, _TOP, _BOTTOM = 60, 20, 12, 36
_STEPS = (1, 2, 2.5, 5, 10)
_MOST_LINES = 7  # on one chart: the baseline and the six best
_THIN = 0.4  # per cent of the bar: what is there can be seen


@dataclass(frozen=True)
class Segment:
    """A part of the bar: per cent from the left and wide; `name` is its CSS class."""

    name: str
    label: str
    count: int
    x: float
    width: float


@dataclass(frozen=True)
class Tick:
    """A mark on an axis."""

    at: float
    text: str


@dataclass(frozen=True)
class Dot:
    """A version on the chart, in pixels."""

    x: float
    y: float
    low: float
    high: float
    is_holdout: bool
    is_refused: bool
    title: str


@dataclass(frozen=True)
class Trace:
    """Another way to label on a chart, as SVG point lists; `style` is its CSS class."""

    name: str
    style: str
    line: str
    band: str


@dataclass(frozen=True)
class Chart:
    """The learning curve in pixels. `line` and `band` are SVG point lists of what the holdout measured; `traces` are
    other ways to label."""

    width: int
    height: int
    left: int
    bottom: float
    right: float
    x_ticks: list[Tick]
    y_ticks: list[Tick]
    line: str
    band: str
    dots: list[Dot]
    traces: list[Trace]


def bar(counts: Counts) -> list[Segment]:
    """The items as one bar of 100 per cent, parts that are there at least 0.4 wide."""
    parts = (
        ("labelled", "labelled", counts.labelled),
        ("holdout", "holdout", counts.holdout),
        ("batch", "in people's hands", counts.in_batch),
        ("pool", "pool", counts.pool),
        ("new", "not encoded yet", counts.new),
        ("failed", "failed", counts.failed),
    )
    shares = [max(_THIN, 100 * count / counts.total) if count else 0.0 for *_, count in parts]
    whole = sum(shares)
    segments, x = [], 0.0
    for (name, label, count), share in zip(parts, shares, strict=True):
        width = 100 * share / whole if whole else 0.0
        segments.append(Segment(name, label, count, round(x, 3), round(width, 3)))
        x += width
    return segments


def learning_curve(points: Sequence[CurvePoint], arms: Sequence[ArmCurve] = ()) -> Chart | None:
    """Accuracy by labels with intervals; the line and its band go through the promoted holdout measurements. Arms are
    drawn dashed beside it, with the lowest and the highest of their seeds."""
    if not points:
        return None
    most = max(1, *(point.labels for point in points), *(max(arm.labels, default=0) for arm in arms))
    least = min(*(point.measure.low for point in points), *(min(arm.low, default=1.0) for arm in arms), 1.0)
    floor = max(0.0, math.floor(least * 10 - 0.5) / 10)
    right, bottom = WIDTH - _RIGHT, HEIGHT - _BOTTOM
    x, y = _scales(most, floor)
    drawn = sorted(
        (point for point in points if point.measure.source == "holdout" and point.state != "refused"),
        key=lambda point: point.labels,
    )
    upper = [f"{x(point.labels)},{y(point.measure.high)}" for point in drawn]
    lower = [f"{x(point.labels)},{y(point.measure.low)}" for point in reversed(drawn)]
    return Chart(
        width=WIDTH,
        height=HEIGHT,
        left=_LEFT,
        bottom=bottom,
        right=right,
        x_ticks=[Tick(x(value), f"{value:g}") for value in _ticks(0, most, 5)],
        y_ticks=[Tick(y(value), f"{value:.0%}") for value in _ticks(floor, 1, 5)],
        line=" ".join(f"{x(point.labels)},{y(point.measure.accuracy)}" for point in drawn),
        band=" ".join(upper + lower) if len(drawn) > 1 else "",
        dots=[
            Dot(
                x(point.labels),
                y(point.measure.accuracy),
                y(point.measure.low),
                y(point.measure.high),
                point.measure.source == "holdout",
                point.state == "refused",
                f"{point.version}: {point.measure.accuracy:.1%} after {point.labels} labels, "
                f"{point.measure.low:.1%} to {point.measure.high:.1%} ({point.measure.source})",
            )
            for point in points
        ],
        traces=[_trace(arm, "base", x, y) for arm in arms],
    )


def comparison(found: ComparisonView) -> Chart:
    """The best six arms by area and the baseline, mean accuracy by labels; the baseline dashed, with its band."""
    base = [arm for arm in found.arms if arm.name == found.baseline]
    best = [arm for arm in found.arms if arm.name != found.baseline][: _MOST_LINES - len(base)]
    most = max(1, *(max(arm.labels, default=0) for arm in found.arms))
    least = min(1.0, *(min(arm.low, default=1.0) for arm in base), *(min(arm.accuracy, default=1.0) for arm in best))
    floor = min(0.9, max(0.0, math.floor(least * 10 - 0.5) / 10))
    x, y = _scales(most, floor)
    lines = [replace(_trace(arm, f"a{at}", x, y), band="") for at, arm in enumerate(best)]
    return Chart(
        width=WIDTH,
        height=HEIGHT,
        left=_LEFT,
        bottom=HEIGHT - _BOTTOM,
        right=WIDTH - _RIGHT,
        x_ticks=[Tick(x(value), f"{value:g}") for value in _ticks(0, most, 5)],
        y_ticks=[Tick(y(value), f"{value:.0%}") for value in _ticks(floor, 1, 5)],
        line="",
        band="",
        dots=[],
        traces=[_trace(arm, "base", x, y) for arm in base] + lines,
    )


def _scales(most: float, floor: float) -> tuple[Callable[[float], float], Callable[[float], float]]:
    """From labels to pixels from the left, and from an accuracy to pixels from the top."""
    right, bottom = WIDTH - _RIGHT, HEIGHT - _BOTTOM

    def x(labels: float) -> float:
        return round(_LEFT + (right - _LEFT) * labels / most, 1)

    def y(accuracy: float) -> float:
        return round(bottom - (bottom - _TOP) * (accuracy - floor) / (1 - floor), 1)

    return x, y


def _trace(arm: ArmCurve, style: str, x: Callable[[float], float], y: Callable[[float], float]) -> Trace:
    upper = [f"{x(labels)},{y(high)}" for labels, high in zip(arm.labels, arm.high, strict=True)]
    lower = [f"{x(labels)},{y(low)}" for labels, low in zip(arm.labels, arm.low, strict=True)]
    line = [f"{x(labels)},{y(accuracy)}" for labels, accuracy in zip(arm.labels, arm.accuracy, strict=True)]
    return Trace(arm.name, style, " ".join(line), " ".join(upper + lower[::-1]))


def _ticks(low: float, high: float, about: int) -> list[float]:
    """Round values from `low` to `high`, about so many."""
    rough = (high - low) / about
    power = 10 ** math.floor(math.log10(rough))
    step = next(size * power for size in _STEPS if size * power >= rough * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [round(index * step, 10) for index in range(first, math.floor(high / step + 1e-9) + 1)]
