"""Whether labels may be trained on: pure checks, each of which tells what it saw, by which evidence, and the mend."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backend.monitoring.agreement import cohen_kappa
from backend.monitoring.duplicates import near_duplicates
from backend.monitoring.finding import Finding
from backend.monitoring.labels import Label, by_item
from backend.monitoring.shares import FEWEST, compare_answers, recent_and_earlier
from backend.questions import Question

Gather = Callable[[Sequence[str]], NDArray[Any]]

ORPHANS_STOP = 0.5  # more than this share of the labels names no class any more
LEAK_STOP = 0.2  # this share of the holdout was trained on: its measure is none
FEWEST_TO_STOP = 10
_NEAR_SHARE = 0.05
_DISPUTED_SHARE = 0.1
_KAPPA = 0.6  # "substantial" begins here; Landis & Koch, Biometrics 1977
_NEAR_WORK = 2e10  # multiplications: about a second on two cores
_ORDER = {"stop": 0, "warn": 1, "note": 2}


@dataclass(frozen=True)
class Before:
    """What the last model knew: its classes, in order, and how many labels of each it was trained on."""

    classes: tuple[str, ...]
    counts: dict[str, int]


def examine(labels: Sequence[Label], question: Question, before: Before | None, gather: Gather | None) -> list[Finding]:
    """All findings, the worst first. labels: in the order given. question: the label configuration's.
    Numbers are not compared: two are hardly ever the same.

    ``gather`` gives the embeddings (n, d) of content hashes; without it near-duplicates are not looked for.
    """
    usable = [label for label in labels if question.knows(label.label)]
    found = [
        *check_configuration(labels, question, before),
        *check_label_set(usable, question, before),
        *(check_shares(usable, question) if question.is_named else ()),
        *(check_disputes(usable, question) if question.is_named else ()),
        *check_leakage(usable),
        *(check_annotators(usable) if question.is_named else ()),
        *(check_near_duplicates(usable, gather) if gather is not None else ()),
    ]
    return sorted(found, key=lambda finding: _ORDER[finding.severity])


def check_configuration(labels: Sequence[Label], question: Question, before: Before | None) -> Iterator[Finding]:
    """What changed in the label configuration, and labels that name no class of it any more."""
    classes = question.choices
    if before is not None and set(before.classes) != set(classes):
        removed = [name for name in before.classes if name not in classes]
        added = [name for name in classes if name not in before.classes]
        renamed = _renamed(before.classes, classes)
        if renamed:
            pairs = ", ".join(f"{old!r} → {new!r}" for old, new in renamed)
            yield Finding(
                "note",
                "labels_renamed",
                f"Labels of the configuration seem to be renamed: {pairs}",
                "the new names stand in the old ones' places",
                "Annotations keep the old names: see labels_orphaned if there are any.",
            )
        elif added:
            yield Finding(
                "note",
                "labels_added",
                f"The configuration has new labels: {_names(added)}",
                f"the last model knew {len(before.classes)}",
                "The model predicts a new label once some items have it.",
            )
        if removed and not renamed:
            yield Finding(
                "note",
                "labels_removed",
                f"The configuration lost labels: {_names(removed)}",
                f"the last model knew {len(before.classes)}",
                "The next model does not predict them.",
            )
    lost = [label.label for label in labels if not question.knows(label.label)]
    orphans = Counter(name for label in lost for name in question.names(label) if name not in classes)
    if orphans:
        count = len(lost)
        is_most = count > ORPHANS_STOP * len(labels) and count >= FEWEST_TO_STOP
        yield Finding(
            "stop" if is_most else "warn",
            "labels_orphaned",
            f"Annotations name labels that the configuration does not have: {_names(orphans)}",
            f"{count} of {len(labels)} annotations; they are not trained on",
            "Give the labels their old names back, label these items again, or delete the annotations in Label Studio.",
        )


def check_label_set(labels: Sequence[Label], question: Question, before: Before | None) -> Iterator[Finding]:
    """Classes that have their first labels, and classes that lost all of theirs since the last model."""
    if before is None:
        return
    classes = question.choices
    counts = Counter(name for label in labels if not label.is_holdout for name in question.names(label.label))
    new = [name for name in classes if counts[name] and not before.counts.get(name)]
    gone = [name for name in classes if before.counts.get(name) and not counts[name]]
    if new:
        evidence = ", ".join(f"{name} {counts[name]}" for name in new)
        yield Finding("note", "label_new", f"Labels are used for the first time: {_names(new)}", evidence, "")
    if gone:
        evidence = ", ".join(f"{name} had {before.counts[name]}" for name in gone)
        mend = "Look in Label Studio whether their annotations were deleted or changed by mistake."
        yield Finding("warn", "label_vanished", f"No item has these labels any more: {_names(gone)}", evidence, mend)


def check_shares(labels: Sequence[Label], question: Question) -> Iterator[Finding]:
    """The newest randomly drawn labels against the earlier ones. Labels that a strategy chose are never tested.

    Where an item may have several names, each name is tested by itself, with Bonferroni's correction.
    """
    drawn = [_agreed(given, question) for given in by_item(label for label in labels if label.is_random).values()]
    earlier, recent = recent_and_earlier(drawn)
    if len(recent) < FEWEST:
        return
    test = compare_answers(earlier, recent, question)
    if not test.is_shifted:
        return
    old, new = (Counter(name for label in side for name in question.names(label)) for side in (earlier, recent))
    gaps = {name: new[name] / len(recent) - old[name] / len(earlier) for name in sorted(old.keys() | new.keys())}
    largest = sorted(gaps, key=lambda name: -abs(gaps[name]))[:3]
    moves = ", ".join(f"{name} {old[name] / len(earlier):.0%} → {new[name] / len(recent):.0%}" for name in largest)
    yield Finding(
        "warn",
        "class_shares_shifted",
        f"Randomly drawn items have other labels than before: {moves}",
        f"the newest {test.recent} against {test.earlier} earlier ones, "
        f"p = {test.p:.4f}, Cramér's V = {test.cramers_v:.2f}",
        "Look whether other items come into the pool, or whether somebody understands the labels differently.",
    )


def check_disputes(labels: Sequence[Label], question: Question) -> Iterator[Finding]:
    """Items with several labels, and equal contents with different ones."""
    items = by_item(labels)
    several = {item: given for item, given in items.items() if len(given) > 1}
    disputed = [item for item, given in several.items() if len({label.label for label in given}) > 1]
    if disputed:
        share = len(disputed) / len(several)
        yield Finding(
            "warn" if share >= _DISPUTED_SHARE and len(disputed) >= FEWEST_TO_STOP else "note",
            "items_disputed",
            "People labelled the same item differently",
            f"{len(disputed)} of {len(several)} items with several labels, such as item {_ids(disputed)}",
            "What most say counts, the latest among equals. Look at these items and delete the wrong annotations.",
        )
    contents: dict[str, dict[int, str]] = defaultdict(dict)
    for item, given in items.items():
        contents[given[0].content_hash][item] = _agreed(given, question)
    torn = [sorted(named) for hash_, named in contents.items() if hash_ and len(set(named.values())) > 1]
    if torn:
        yield Finding(
            "warn",
            "duplicates_disputed",
            "The same content has different labels in different items",
            f"{len(torn)} contents, such as items {_ids(torn[0])}",
            "Look at these items and correct the wrong annotations.",
        )


def check_leakage(labels: Sequence[Label]) -> Iterator[Finding]:
    """Holdout items whose very bytes were trained on."""
    trained = {label.content_hash for label in labels if not label.is_holdout}
    holdout = {label.item_id: label.content_hash for label in labels if label.is_holdout}
    leaks = sorted(item for item, hash_ in holdout.items() if hash_ in trained)
    if leaks:
        is_most = len(leaks) >= max(FEWEST_TO_STOP, LEAK_STOP * len(holdout))
        yield Finding(
            "stop" if is_most else "warn",
            "holdout_leaks",
            "Items of the holdout are trained on under another address, so the accuracy is flattered",
            f"{len(leaks)} of {len(holdout)} holdout items, such as item {_ids(leaks)}",
            "Take the copies out of the pool, or delete their annotations.",
        )


def check_near_duplicates(labels: Sequence[Label], gather: Gather) -> Iterator[Finding]:
    """Holdout items that nearly equal one that was trained on; a sample of the holdout where all would take long."""
    train = sorted({label.content_hash for label in labels if not label.is_holdout})
    holdout = {label.content_hash: label.item_id for label in labels if label.is_holdout}
    hashes = sorted(holdout.keys() - set(train))
    if not train or not hashes:
        return
    known = gather(train)
    affordable = max(50, int(_NEAR_WORK / known.size))
    if len(hashes) > affordable:
        hashes = sorted(np.random.default_rng(0).choice(hashes, affordable, replace=False).tolist())
    near = near_duplicates(known, gather(hashes))
    if near:
        share = len(near) / len(hashes)
        yield Finding(
            "warn" if share >= _NEAR_SHARE and len(near) >= FEWEST_TO_STOP else "note",
            "holdout_near_duplicates",
            "Items of the holdout nearly equal items that are trained on",
            f"{len(near)} of {len(hashes)} looked at, such as item {_ids(holdout[hashes[row]] for row, _, _ in near)}",
            "If they are frames of one scene or copies, the accuracy is flattered: sample the pool more sparsely.",
        )


def check_annotators(labels: Sequence[Label]) -> Iterator[Finding]:
    """Pairs of people who labelled 20 items or more both, and surely agree less than substantially."""
    pairs: dict[tuple[str, str], list[tuple[str, str]]] = defaultdict(list)
    for given in by_item(labels).values():
        latest = {label.annotator: label.label for label in given}
        for one, other in combinations(sorted(latest), 2):
            pairs[one, other].append((latest[one], latest[other]))
    poor = []
    for (one, other), both in sorted(pairs.items()):
        if len(both) >= FEWEST:
            agreement = cohen_kappa([first for first, _ in both], [second for _, second in both])
            if agreement.high < _KAPPA:
                poor.append(f"{one} and {other} (kappa {agreement.kappa:.2f} on {agreement.items} items)")
    if poor:
        yield Finding(
            "warn",
            "annotators_disagree",
            "People understand the labels differently",
            f"annotators {'; '.join(poor[:5])}{'; …' if len(poor) > 5 else ''}",
            "Let them look at their disputed items together, and make the instructions clearer.",
        )


def _renamed(before: tuple[str, ...], after: tuple[str, ...]) -> list[tuple[str, str]]:
    """Old and new names where only names differ: as many labels, and each that stays is in its place."""
    if len(before) != len(after):
        return []
    changed = [(old, new) for old, new in zip(before, after, strict=True) if old != new]
    is_rename = not {old for old, _ in changed} & set(after) and not {new for _, new in changed} & set(before)
    return changed if is_rename else []


def _names(names: Iterable[str]) -> str:
    known = [repr(name) for name in names]
    return ", ".join(known[:5]) + (", …" if len(known) > 5 else "")


def _agreed(given: Sequence[Label], question: Question) -> str:
    return question.agreed([one.label for one in given])[0]


def _ids(items: Iterable[int]) -> str:
    known = [str(item) for item in items]
    return ", ".join(known[:3]) + (", …" if len(known) > 3 else "")
