"""A drawing of a version's network, encoder and head: a box a layer, as text and as a small SVG."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from math import log10, prod
from pathlib import Path

from backend.learning.heads import Head
from strategies import Task

_LINKS = {
    Task.CLASSIFICATION: "softmax",
    Task.MULTI_LABEL: "a sigmoid each",
    Task.REGRESSION: "a number, and its deviation",
}
_INPUTS = {1: "float32", 2: "uint8", 6: "int32", 7: "int64"}  # ONNX's element types
_WIDTH, _ROW = 520, 26


@dataclass(frozen=True)
class Layer:
    """One box: its name, what is in it, and how many fitted numbers it has."""

    name: str
    what: str
    parameters: int


def layers(encoder: Path | None, head: Head) -> tuple[Layer, ...]:
    """From the input to the probabilities. Where the encoder's file is not here, the drawing begins at embeddings.

    The encoder's nodes are gathered by the module that they came from: the first parts of their names.
    """
    k, d = len(head.classes), head.features
    return (
        *(_network(encoder) if encoder is not None and encoder.is_file() else ()),
        Layer("embeddings", f"{d} numbers", 0),
        Layer("standardise", "minus the mean, over the deviation", 2 * d),
        *_head(head),
        Layer("probabilities", f"{_LINKS[head.task]} at temperature {head.temperature:.3g}, {k} classes", 1),
    )


def text(drawn: Sequence[Layer]) -> str:
    """A line a layer, with an arrow between them."""
    width = max(len(one.name) for one in drawn)
    return "\n  ↓\n".join(
        f"  [{one.name:<{width}}]  {one.what}{f'; {one.parameters:,} parameters' if one.parameters else ''}"
        for one in drawn
    )


def svg(drawn: Sequence[Layer]) -> str:
    """A standalone picture. A box is the wider, the more parameters it has."""
    most = max(log10(one.parameters + 10) for one in drawn)
    boxes = []
    for at, one in enumerate(drawn):
        y, wide = 8 + at * (_ROW + 10), round(120 + 380 * log10(one.parameters + 10) / most)
        x, middle = (_WIDTH - wide) / 2, _WIDTH / 2
        if at:
            boxes.append(f'<line x1="{middle}" y1="{y - 10}" x2="{middle}" y2="{y}" stroke="#667"/>')
        label = f"{one.name}: {one.what}"
        boxes.append(f'<rect x="{x}" y="{y}" width="{wide}" height="{_ROW}" rx="4" fill="#dde6f2" stroke="#667"/>')
        boxes.append(f'<text x="{middle}" y="{y + 17}" text-anchor="middle">{escape(label)}</text>')
        boxes.append(f"<title>{escape(f'{label}, {one.parameters:,} parameters')}</title>")
    height = 16 + len(drawn) * (_ROW + 10) - 10
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" width="{_WIDTH}" height="{height}" '
        f'font-family="sans-serif" font-size="11" role="img" aria-label="The layers of the network">\n'
        + "\n".join(boxes)
        + "\n</svg>\n"
    )


def _head(head: Head) -> tuple[Layer, ...]:
    inside, k = head.weights.shape
    last = Layer("head", f"linear, {inside} → {k}", head.weights.size + k)
    if head.hidden is None:
        return (last,)
    return Layer("hidden", f"linear and ReLU, {head.features} → {inside}", head.hidden.size + inside), last


def _network(path: Path) -> tuple[Layer, ...]:
    import onnx

    graph = onnx.load(str(path)).graph
    sizes = {one.name: prod(one.dims) for one in graph.initializer}
    found: dict[str, list[str]] = {}
    counted: dict[str, int] = {}
    scopes = [[part for part in node.name.split("/")[1:-1] if part] for node in graph.node]
    outer = {scope[0] for scope in scopes if scope}
    for node, scope in zip(graph.node, scopes, strict=True):
        inner = scope[1:] if len(outer) == 1 else scope  # one module around all of it says nothing
        if not inner:
            continue
        name = ".".join(inner[0].split(".")[:2])
        found.setdefault(name, []).append(node.op_type)
        counted[name] = counted.get(name, 0) + sum(sizes.pop(one, 0) for one in node.input)
    given = graph.input[0]
    axes = [one.dim_param or str(one.dim_value) for one in given.type.tensor_type.shape.dim]
    element = _INPUTS.get(given.type.tensor_type.elem_type, "?")
    return (
        Layer(given.name, f"{element} ({', '.join(axes)})", 0),
        *(Layer(name, _operations(found[name]), counted[name]) for name in found),
    )


def _operations(kinds: Sequence[str]) -> str:
    """The operations that do the work, with how often."""
    heavy = [
        kind for kind in kinds if kind in ("Conv", "Gemm", "MatMul", "Softmax", "Clip", "Relu", "GlobalAveragePool")
    ]
    counts = {kind: heavy.count(kind) for kind in dict.fromkeys(heavy)}
    return ", ".join(f"{count} {kind}" for kind, count in counts.items()) or f"{len(kinds)} operations"
