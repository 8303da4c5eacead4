"""A model version's card: who made it, when, from what, how good it is, and what it is used for."""

from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from backend.database import Batch, ModelAnalysis, ModelVersion, Pick, Project, Round
from backend.errors import EncoderUnreadable
from backend.learning import look, registry, usage
from backend.learning.analysis import Analysis
from backend.learning.evaluate import Measured
from backend.learning.finetune_plan import recorded
from backend.learning.provenance import sha256_of
from backend.learning.quantisation import report_of

Card = dict[str, Any]

_MEASURES = (
    ("accuracy", "accuracy", ""),
    ("micro_f1", "micro F1", ""),
    ("macro_f1", "macro F1", ""),
    ("log_loss", "log loss", " nats"),
    ("mae", "mean abs. error", ""),
    ("rmse", "root mean square", ""),
    ("r2", "R²", ""),
    ("inside", "within 95 %", ""),
    ("calibration_error", "calibration error", ""),
)
_SHOWN = 10  # confusions and slices; the JSON has all that are kept


def card(session: Session, version: ModelVersion) -> Card:
    """Everything that is known of a version, as JSON. ``None`` where the version is older than what records it.

    ``files`` compares each file's sha256 with the recorded one: "intact", "changed", "missing", or "unrecorded".
    """
    project = session.get_one(Project, version.project_id)
    round_ = session.get_one(Round, version.round_id)
    parent = session.get(ModelVersion, version.parent_id) if version.parent_id else None
    lineage = version.lineage
    features, classes = lineage.get("features"), lineage.get("classes")
    return {
        "name": version.name,
        "project": project.name,
        "state": version.state,
        "tags": list(version.tags),
        "made": {
            "at": version.created_at.isoformat(timespec="seconds"),
            "by": f"round {round_.number}",
            "trigger": round_.trigger,
            "parent": parent.name if parent else None,
            "seconds": lineage.get("seconds"),
            "code": lineage.get("code"),
            "libraries": lineage.get("libraries"),
            "python": lineage.get("python"),
            "machine": lineage.get("machine"),
            "threads": lineage.get("threads"),
        },
        "data": {
            "snapshot": version.snapshot,
            "labels": lineage.get("labels"),
            "holdout": lineage.get("holdout"),
            "class_counts": lineage.get("class_counts"),
            "label_config": lineage.get("label_config"),
        },
        "model": {
            "encoder": version.encoder_digest,
            "fine_tuned": _fine_tuned(version),
            "int8": _int8(version),
            "head": version.head_digest,
            "features": features,
            "classes": classes,
            "parameters": lineage.get("parameters") or _parameters(features, classes),
            "tuning": lineage.get("tuning"),
            "hidden": lineage.get("hidden") or None,
            "method": lineage.get("method"),
            "penalty": lineage.get("penalty"),
            "chosen_by": lineage.get("chosen_by"),
            "temperature": lineage.get("temperature"),
            "is_calibrated": lineage.get("is_calibrated"),
            "graph_nodes": lineage.get("graph_nodes"),
            "neighbours": lineage.get("neighbours"),
            "seed": version.seed,
        },
        "metrics": dict(version.metrics),
        "analysis": _analysis(session, version),
        "files": _files(version),
        "use": _use(session, version),
        "changes": [
            {
                "at": line.created_at.isoformat(timespec="seconds"),
                "what": line.action,
                "by": line.actor,
                "of": line.detail,
            }
            for line in registry.changes(session, version.project_id, version)
        ],
    }


def render(found: Card) -> str:
    """The card as text, a section a paragraph."""
    tags = f"  [{', '.join(found['tags'])}]" if found["tags"] else ""
    sections = [f"{found['project']} {found['name']}: {found['state']}{tags}"]
    sections += [_section(title, found[title]) for title in ("made", "data", "model", "use")]
    sections.append(_metrics(found["metrics"]))
    sections.append(_closer(found["analysis"]))
    sections.append(
        _section("files", {name: f"{one['state']} {one['sha256'] or ''}" for name, one in found["files"].items()})
    )
    lines = {f"{line['at']} {line['what']}": f"{line['of']} by {line['by']}".strip() for line in found["changes"]}
    sections.append(_section("changes", lines))
    return "\n\n".join(section for section in sections if section)


def _parameters(features: int | None, classes: list[str] | None) -> int | None:
    """Fitted numbers of a linear head, of which older versions kept no count."""
    return None if features is None or classes is None else features * len(classes) + len(classes) + 2 * features + 1


def _int8(version: ModelVersion) -> dict[str, Any] | None:
    """What the check of its int8 encoder said; None for another encoder, or one that is not here."""
    try:
        facts = report_of(registry.encoder_path(version.encoder_digest).parent)
    except EncoderUnreadable:
        return None
    kept = ("parent", "items", "labels", "exact_accuracy", "accuracy", "overlap", "mean_cosine", "least_cosine", "made")
    return None if facts is None else {name: facts.get(name) for name in kept}


def _fine_tuned(version: ModelVersion) -> dict[str, Any] | None:
    """What its encoder was trained on, and from which; None for one that was not fine-tuned, or is not here."""
    try:
        facts = recorded(registry.encoder_path(version.encoder_digest).parent)
    except EncoderUnreadable:
        return None
    if facts is None:
        return None
    plan, outcome = facts["plan"], facts["outcome"]
    kept = {"from": plan["parent"], "snapshot": plan["snapshot"], "seed": plan["seed"], "epoch": outcome["best_epoch"]}
    return {**kept, **plan["options"], "made": facts["made"], "by": facts["by"]}


def _files(version: ModelVersion) -> dict[str, dict[str, str | None]]:
    recorded: Mapping[str, str] = version.lineage.get("files") or {}
    found: dict[str, dict[str, str | None]] = {}
    for name, path in registry.files(version).items():
        now = sha256_of(path) if path.is_file() else None
        if now is None:
            state = "missing"
        elif name not in recorded:
            state = "unrecorded"
        else:
            state = "intact" if now == recorded[name] else "changed"
        found[name] = {"path": str(path), "sha256": now, "state": state}
    return found


def _analysis(session: Session, version: ModelVersion) -> dict[str, Any] | None:
    kept = session.get(ModelAnalysis, version.id)
    return None if kept is None else {"at": kept.made_at.isoformat(timespec="seconds"), **kept.found}


def _use(session: Session, version: ModelVersion) -> dict[str, Any]:
    """How many predictions the version gave, the batches that it chose, and how many items they hold."""
    mine = Batch.model_version_id == version.id
    batches = session.scalars(sa.select(Batch.version).where(mine).order_by(Batch.number)).all()
    picks = session.scalar(
        sa.select(sa.func.count()).select_from(Pick).join(Batch, Batch.id == Pick.batch_id).where(mine)
    )
    return {
        "answers": version.state == "champion",
        "asked": usage.asked(session, version.id),
        "batches": list(batches),
        "picks": picks,
    }


def _section(title: str, facts: Mapping[str, Any]) -> str:
    known = {name: value for name, value in facts.items() if value not in (None, [], {}, "")}
    if not known:
        return ""
    width = max(len(name) for name in known)
    return "\n".join([title, *(f"  {name:<{width}}  {_text(value)}" for name, value in known.items())])


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_text(one)}" for name, one in value.items() if one is not None)
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _metrics(metrics: Mapping[str, Any]) -> str:
    if not metrics:
        return "metrics\n  none: too few labels to measure anything"
    lines = [f"metrics, on {metrics['labels']} labels of the {metrics['source']}"]
    for name, title, unit in _MEASURES:
        if metrics.get(name) is not None:
            interval = metrics.get(f"{name}_interval")
            beside = f"  (95 %: {interval['low']:.3f} to {interval['high']:.3f})" if interval else unit
            lines.append(f"  {title:<17}  {metrics[name]:.3f}{beside}")
    classes = metrics.get("classes", ())
    width = max((len(one["name"]) for one in classes), default=0)
    for one in classes:
        shares = [f"{key} {'-' if one[key] is None else format(one[key], '.3f')}" for key in ("precision", "recall")]
        lines.append(f"    {one['name']:<{width}}  {one['labels']:>6} labels  {'  '.join(shares)}")
    return "\n".join(lines)


def _closer(stored: Mapping[str, Any] | None) -> str:
    """What a closer look found: measures with intervals, confusions, the worst slices, what small changes do."""
    if stored is None:
        return ""
    found = look.read({name: value for name, value in stored.items() if name != "at"})
    lines = [f"a closer look, on {found.labels} labels of the holdout at {stored['at']} (95 % intervals)"]
    lines += [f"  {title:<18} {_interval(one)}" for title, one in found.measures]
    if isinstance(found, Analysis):
        lines += _of_classes(found)
    slices = [
        f"  {one.field} = {one.value}: {', '.join(f'{title} {_interval(known)}' for title, known in one.measures)} of "
        f"{one.items}, {one.difference:+.3f} beside the rest, p {one.adjusted_p:.3f} of all slices"
        f"{': WORSE' if one.is_worse else ''}"
        for one in found.slices[:_SHOWN]
    ]
    changes = [
        f"  {one.name}: {one.kept:.0%} of {one.items} predictions stay, {one.measure} "
        f"{_interval(Measured(one.difference, one.difference_interval), '+.3f')}{': WORSE' if one.is_worse else ''}"
        for one in found.changes
    ]
    return "\n".join([*lines, *slices, *changes])


def _of_classes(found: Analysis) -> list[str]:
    """What is known only where an item has one class."""
    lines = [f"    chance alone gives a calibration error up to {found.chance_calibration_error:.3f}"]
    width = max(len(one.name) for one in found.classes)
    lines += [
        f"    {kind.name:<{width}}  precision {_interval(kind.precision)}  recall {_interval(kind.recall)}"
        for kind in found.classes
    ]
    lines += [
        f"  claimed {one.confidence:.2f}: right {_interval(one.accuracy)} of {one.items}" for one in found.reliability
    ]
    lines += [
        f"  {one.label} taken for {one.predicted}: {one.items}, {_interval(one.share)} of {one.label}"
        for one in found.confusions[:_SHOWN]
    ]
    return lines


def _interval(one: Measured | None, form: str = ".3f") -> str:
    return "-" if one is None else f"{one.value:{form}} ({one.interval.low:{form}} to {one.interval.high:{form}})"
