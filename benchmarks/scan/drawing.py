"""The results as a table and a picture for docs/benchmarks.md."""

from pathlib import Path
from typing import Any

from benchmarks.scan.companion import ROOT

PICTURE = ROOT / "docs" / "images" / "scan.svg"
DOCUMENT = ROOT / "docs" / "benchmarks.md"
BEGIN, END = "<!-- scan: begin -->", "<!-- scan: end -->"


def document(report: dict[str, Any]) -> None:
    """Put the table of a results file between the marks of the document, and draw the picture beside it."""
    machine = report["machine"]
    lines = [
        f"Measured on {machine['cores']} cores, {machine['cpu']}. *auto* is the precision that pays on a row's machine",
        "(bf16: with AMX), *stolen* the share of cores that its host gave to others meanwhile; –: not looked at then.",
        "",
        "| row | measure | median | target | runs | auto | stolen | commit |",
        "|---|---|---|---|---|---|---|---|",
        *map(_line, report["rows"]),
    ]
    if _draw({row["id"]: row for row in report["rows"]}, PICTURE):
        lines += [
            "",
            f"![Images a second against ALaaS and the loops, by latency, by minibatch](images/{PICTURE.name})",
        ]
    text = DOCUMENT.read_text()
    head, _, rest = text.partition(BEGIN)
    _, _, tail = rest.partition(END)
    DOCUMENT.write_text(head + "\n".join([BEGIN, *lines, END]) + tail)


def _line(row: dict[str, Any]) -> str:
    sign = "≤" if row["better"] == "lower" else "≥"
    target = "–" if row["target"] is None else f"{sign} {row['target']:g}, {'met' if row['met'] else '**not met**'}"
    runs = ", ".join(f"{run:.3g}" for run in row["runs"])
    stolen = f"{row['stolen']:.0%}" if "stolen" in row else "–"
    machine = f"{row.get('auto', row.get('precision', '–'))} | {stolen} | {row.get('commit', '–')}"
    return f"| `{row['id']}` | {row['measure']} | {row['value']:.3g} {row['unit']} | {target} | {runs} | {machine} |"


def _draw(rows: dict[str, dict[str, Any]], path: Path) -> bool:
    """Three panels, of those rows that are there; False where none is."""
    import matplotlib as mpl

    mpl.use("svg")
    from matplotlib import pyplot

    panels = [
        panel
        for panel, needed in ((_rates, "vs_alaas_cold"), (_latencies, "latency_sweep"), (_minibatches, "batch_sweep"))
        if needed in rows
    ]
    if not panels:
        return False
    figure, axes = pyplot.subplots(1, len(panels), figsize=(4.2 * len(panels), 3.4), squeeze=False)
    for panel, axis in zip(panels, axes[0], strict=True):
        panel(rows, axis)
        axis.set_ylabel("images/s")
        axis.set_ylim(bottom=0)
        axis.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    path.parent.mkdir(exist_ok=True)
    figure.savefig(path, metadata={"Date": None})
    return True


def _median(values: list[float]) -> float:
    return sorted(values)[len(values) // 2]


def _rates(rows: dict[str, dict[str, Any]], axis: Any) -> None:
    alaas = rows["vs_alaas_cold"]
    bars = {"nextbatch": _median(alaas["images_per_s"]), "ALaaS": _median(alaas["alaas_per_s"])}
    bars |= rows.get("vs_loops_cold", {}).get("peers", {})
    axis.bar(list(bars), list(bars.values()), color=["#2b6cb0", *["#a0aec0"] * (len(bars) - 1)])
    if "cold_vs_bound" in rows:
        # By the ratio: the machine may have been another, or in another mood, when the bound was measured.
        bound = bars["nextbatch"] / _median(rows["cold_vs_bound"]["raw"])
        axis.axhline(bound, color="#1a202c", linestyle=":", linewidth=1)
        axis.set_title("one cold scan (dotted: the model alone)", fontsize=9)
    axis.tick_params(axis="x", rotation=40, labelsize=8)


def _latencies(rows: dict[str, dict[str, Any]], axis: Any) -> None:
    ours, theirs = rows["latency_sweep"]["images_per_s"], rows["latency_sweep"]["alaas_per_s"]
    axis.plot([float(ms) for ms in ours], [_median(rates) for rates in ours.values()], "o-", color="#2b6cb0")
    axis.plot([float(ms) for ms in theirs], list(theirs.values()), "o-", color="#a0aec0")
    axis.set_xscale("log")
    axis.set_xlabel("storage latency, ms")
    axis.set_title("nextbatch (blue) and ALaaS", fontsize=9)


def _minibatches(rows: dict[str, dict[str, Any]], axis: Any) -> None:
    for kind, sizes in rows["batch_sweep"]["images_per_s"].items():
        axis.plot([int(size) for size in sizes], [_median(rates) for rates in sizes.values()], "o-", label=kind)
    axis.set_xscale("log", base=2)
    axis.set_xlabel("minibatch")
    axis.legend(fontsize=8, frameon=False)
