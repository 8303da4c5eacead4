"""The loop's state in plain words: what happens next by itself, and what a person should do."""

import datetime as dt

from backend.web.views.health import WorkerView
from backend.web.views.projects import ProjectState

_TRIGGERS = {
    "new_labels": "new labels",
    "batch_runs_out": "the batch ran low",
    "start_training": "Start training in Label Studio",
    "hand": "asked for by hand",
    "api": "asked for through the API",
    "dashboard": "asked for here",
    "seed": "the project was set up",
    "encoder": "another encoder is ready",
}

LOGGED = {"rounds": "round", "jobs": "part", "encoder-changes": "the encoder's change"}
"""What wrote a log, by the kind in its address."""


def trigger(name: str) -> str:
    """Why a round began."""
    return _TRIGGERS.get(name, name.replace("_", " "))


def next_trigger(state: ProjectState) -> str:
    """When the next round starts by itself."""
    rules = state.trigger
    if state.round is not None and state.round.state == "waiting":
        return f"Round {state.round.number} waits for a worker."
    missing = max(0, rules.labels_wanted - rules.new_labels)
    quiet = f"{rules.quiet_s:g} s of quiet (at the latest {rules.max_wait_s:g} s after the first label)"
    labels = f"{missing} more {'label' if missing == 1 else 'labels'} and {quiet}" if missing else quiet
    if rules.rest_share == 0:
        return f"The next round starts after {labels}."
    return (
        f"The next round starts after {labels}, or when {rules.rest_share:.0%} of the batch is left "
        f"(now {rules.rest_of_batch:.0%})."
    )


def encoder_change(state: ProjectState) -> str:
    """How far the change to another encoder is, or why there is none; empty where nothing is to be told."""
    change = None if state.encoder is None else state.encoder.change
    if state.encoder is None or change is None:
        return ""
    goes_on = f"Rounds go on with {state.encoder.name}."
    if change.state == "waiting":
        return f"{change.to} is going to be the encoder as soon as a worker takes that on. {goes_on}"
    if change.state == "checking":
        return f"{change.to} is going to be the encoder: it is being loaded and checked. {goes_on}"
    if change.state == "encoding":
        known = f"{change.done or 0:,} of {change.total:,} items are encoded" if change.total else "it begins to encode"
        left = "" if change.left_s is None else f", about {duration(change.left_s)} left"
        return f"{change.to} is going to be the encoder: {known}{left}. {goes_on}"
    if change.state == "ready":
        return f"{change.to} is going to be the encoder: all is ready, and the next round switches to it."
    if change.state == "failed":
        mend = "Mend that and store the configuration again, or set the encoder back."
        return f"The encoder was not changed to {change.to}: {change.failure} {mend} {goes_on}"
    return ""


def advice(state: ProjectState, workers: list[WorkerView]) -> str:
    """What to do now: one sentence or two, the most pressing thing first."""
    counts, round_ = state.counts, state.round
    if round_ is not None and round_.state in ("waiting", "running") and not any(one.is_alive for one in workers):
        return f"Round {round_.number} cannot go on: no worker gives a sign. Start one with `nextbatch worker`."
    if round_ is not None and round_.state == "failed":
        return (
            f"Round {round_.number} failed: {round_.failure or 'no reason is known'} Mend that, then ask for a round."
        )
    if counts.total == 0:
        return "There is nothing to label yet: import tasks into Label Studio, or name a pool in the configuration."
    if round_ is None:
        return "Ask for a round: it encodes the items and publishes the first batch."
    if counts.in_batch:
        items = "item waits" if counts.in_batch == 1 else "items wait"
        return f"{counts.in_batch} {items} for a label: open the project in Label Studio and press Label All Tasks."
    if round_.state in ("waiting", "running"):
        return f"Nothing: round {round_.number} is on its way to the next batch."
    if counts.pool == 0 and counts.new == 0:
        return "The pool is exhausted: everything that can be read has a label. Add items, or take the model."
    return "No batch is in people's hands: ask for a round."


def duration(seconds: float) -> str:
    """A span of time, as a person would say it."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def ago(moment: dt.datetime, at: dt.datetime) -> str:
    """How long ago, as a person would say it."""
    seconds = max(0.0, (at - moment).total_seconds())
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit} ago"
    return f"{seconds:.0f} s ago"
