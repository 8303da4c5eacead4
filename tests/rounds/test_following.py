"""A scan that a worker runs can be followed from another process, and a worker's metrics scraped."""

import httpx
import pytest
import sqlalchemy as sa

from backend import metrics
from backend.database import Project, Round, transaction
from backend.processes import free_port
from backend.rounds import following
from backend.rounds import round as the_round
from backend.scoring.stages import Speed, StageSpeed

pytestmark = pytest.mark.usefixtures("store")


def test_what_a_round_tells_is_what_a_follower_sees_until_the_step_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    speed = Speed({"encode": StageSpeed(120.0, 0.98)}, "encode", 7.5, {"FetchFailed": 2})
    with transaction() as session:
        session.add(Project(id=1, name="pool", config={"name": "pool"}))
        session.flush()
        session.add(Round(project_id=1, number=1, workflow_id="w", state="running", step="encode"))
    tell = the_round._progress(1, 1)
    tell(100, 1_000, speed)
    looks: list[following.Moment] = []

    def go_on(_seconds: float) -> None:
        if looks[-1].done == 100:
            tell(200, 1_000, speed)
        else:
            with transaction() as session:
                session.execute(sa.update(Round).values(step="learn", progress={}))

    monkeypatch.setattr(following.time, "sleep", go_on)

    for moment in following.moments(1):
        looks.append(moment)  # noqa: PERF402 - `go_on` reads it meanwhile

    assert looks == [following.Moment(100, 1_000, speed), following.Moment(200, 1_000, speed)]


def test_no_round_no_moments() -> None:
    assert list(following.moments(1)) == []


def test_a_worker_answers_scrapes() -> None:
    port = free_port()
    metrics.serve(f"127.0.0.1:{port}")

    text = httpx.get(f"http://127.0.0.1:{port}/metrics", trust_env=False, timeout=30).text

    assert "# TYPE nextbatch_scan_busy_seconds_total counter" in text
    assert "# TYPE nextbatch_scan_items_total counter" in text
