"""What Prometheus is told: conventional names, labels that stay few, and a dashboard that reads nothing else."""

import json
import re
from pathlib import Path

import pytest
from prometheus_client import Counter, Histogram
from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.parser import text_string_to_metric_families

from backend import metrics
from backend.web.app import create_app
from backend.web.gauges import LoopGauges

_ENDS = {Counter: ("_total",), Histogram: ("_bucket", "_sum", "_count")}
_OWN = [value for value in vars(metrics).values() if isinstance(value, MetricWrapperBase)]
_KEYWORDS = {"by", "sum", "rate", "increase", "min", "max", "time", "histogram_quantile", "label_values"}


def known() -> dict[str, set[str]]:
    """Every series that can be scraped, with its labels."""
    found = {
        one._name + end: {*one._labelnames, *({"le"} if end == "_bucket" else ())}
        for one in _OWN
        for end in _ENDS.get(type(one), ("",))
    }
    return found | {family.name: set(family._labelnames) for family in LoopGauges().describe()}


def expressions() -> list[tuple[str, str]]:
    board = json.loads(Path("configs/grafana.json").read_text())
    drawn = [(one["expr"], one["legendFormat"]) for panel in board["panels"] for one in panel["targets"]]
    return drawn + [(one["query"]["query"], "") for one in board["templating"]["list"] if one["type"] == "query"]


@pytest.mark.parametrize(("expression", "legend"), expressions())
def test_the_dashboard_reads_only_what_exists(expression: str, legend: str) -> None:
    names = set(re.findall(r"\bnextbatch_\w+", expression))
    labels = set(re.findall(r"(\w+)=~?\"", expression)) | set(re.findall(r"\{\{(\w+)\}\}", legend))
    for listed in re.findall(r"by \(([^)]*)\)", expression):
        labels |= {one.strip() for one in listed.split(",")}

    assert names
    assert names <= set(known())
    assert labels <= set.union(*(known()[name] for name in names))


def test_every_series_is_on_the_dashboard() -> None:
    drawn = " ".join(expression for expression, _ in expressions())

    assert {name for name in known() if name not in drawn} == {"nextbatch_request_duration_seconds_sum"}


def test_names_follow_the_conventions() -> None:
    counters = {f"{one._name}_total" for one in _OWN if isinstance(one, Counter)}
    for name in known():
        assert re.fullmatch(r"nextbatch_[a-z_]+", name)
        assert not re.search(r"_(ms|milliseconds|minutes|kb|mb|percent)(_|$)", name)
        assert name.endswith("_total") == (name in counters)


def test_versions_that_are_not_used_any_more_leave_the_exposition() -> None:
    for number in range(2 * metrics.MOST_VERSIONS):
        metrics.used("flowers", f"v{number}", 3)

    text = metrics.exposition().decode()

    named = re.findall(r'nextbatch_model_predictions_total{project="flowers",version="(v\d+)"} 3.0', text)
    assert len(named) == metrics.MOST_VERSIONS
    assert f"v{2 * metrics.MOST_VERSIONS - 1}" in named


def test_the_loop_is_told_from_the_database(store: str) -> None:
    from tests.web.conftest import make_project

    project = make_project()
    answer = create_app().test_client().get("/metrics")

    families = {family.name: family for family in text_string_to_metric_families(answer.text)}
    states = {
        s.labels["state"]: s.value for s in families["nextbatch_items"].samples if s.labels["project"] == project.name
    }
    assert families["nextbatch_database_up"].samples[0].value == 1
    assert states == dict.fromkeys(("labelled", "holdout", "in_batch", "pool", "new", "failed", "gone"), 0)
