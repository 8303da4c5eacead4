"""Wherever publishing dies, on our side or on Label Studio's, doing it again ends as if nothing had happened."""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from backend.errors import LabelStudioUnreachable
from backend.processes import free_port
from backend.studio.client import Studio
from backend.studio.labels import image_config
from backend.studio.publish import PublishPlan, publish
from backend.studio.server import Account, LabelStudioServer
from tests.services.label_studio import LABELS, TASK, add_tasks
from tests.studio.test_publish import MODES, Mode, plan_of, predictions_of, tasks_of


class Died(Exception):
    """Our process ends here: the call was made, and nobody reads the answer."""


class Mortal(Studio):
    """A connection whose process dies right after its `dies_after`th writing call: what it reads changes nothing."""

    def __init__(self, url: str, api_key: str, dies_after: int) -> None:
        super().__init__(url, api_key)
        self.calls_left = dies_after

    def _call(self, method: str, *call: Any) -> Any:
        answer = super()._call(method, *call)
        self.calls_left -= method != "GET"
        if self.calls_left == 0 and method != "GET":
            raise Died
        return answer


class Killing(Studio):
    """A connection that has Label Studio killed while it imports."""

    def __init__(self, server: LabelStudioServer, after_s: float) -> None:
        super().__init__(server.url, server.account.token)
        self.killer = threading.Timer(after_s, server.kill)

    def post(self, path: str, *args: Any, **named: Any) -> Any:
        if "/import" in path and not self.killer.is_alive():
            self.killer.start()
        return super().post(path, *args, **named)


@pytest.fixture(scope="module")
def own_server(python_env: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LabelStudioServer]:
    """A Label Studio that a test may kill."""
    running = LabelStudioServer(python_env, tmp_path_factory.mktemp("own") / "data", free_port(), Account.random())
    running.start()
    running.wait_ready()
    yield running
    running.stop()


def assert_stands_once(studio: Studio, project_id: int, plan: PublishPlan, task_ids: tuple[int | None, ...]) -> None:
    """Every pick has one task and one prediction, whose score is its rank, and the queue is ordered by them."""
    keys = tasks_of(studio, project_id)
    wanted = [pick.key for pick in plan.picks]
    assert [keys[task_id or 0] for task_id in task_ids] == wanted
    assert sorted(key for key in keys.values() if key in wanted) == sorted(wanted)
    scores = predictions_of(studio, project_id, plan.version)
    assert len(scores) == len(wanted)
    for rank, task_id in enumerate(task_ids):
        assert scores[task_id or 0] == [pytest.approx((rank + 1) / (len(wanted) + 1))]
    assert studio.get(f"/api/projects/{project_id}/")["model_version"] == plan.version
    assert set(studio.get(f"/api/projects/{project_id}/model-versions/")) == {plan.version}


@pytest.mark.parametrize("mode", MODES)
def test_our_death_after_any_write_changes_nothing(
    studio: Studio, server: LabelStudioServer, project_id: int, mode: Mode
) -> None:
    ids: list[int | None] = [*add_tasks(studio, project_id, 40)] if mode == "reorder" else [None] * 40
    has_ended = False
    calls = 0
    while not has_ended:
        calls += 1
        ranked = [calls - 1, calls, calls + 1]  # what is left of the last batch, and a new pick
        plan = plan_of(ranked, [ids[n] for n in ranked], f"v1+b{calls}", mode)
        with Mortal(server.url, server.account.token, calls) as mortal:
            try:
                publish(mortal, project_id, plan, TASK)
                has_ended = True
            except Died:
                pass

        published = publish(studio, project_id, plan, TASK)

        assert_stands_once(studio, project_id, plan, published.task_ids)
    assert calls > 3


@pytest.mark.parametrize("mode", MODES)
def test_label_studio_killed_while_it_imports_changes_nothing(own_server: LabelStudioServer, mode: Mode) -> None:
    with Studio(own_server.url, own_server.account.token) as studio, Killing(own_server, after_s=0.08) as killing:
        body = {"title": f"killed {mode}", "label_config": image_config(LABELS)}
        project_id = int(studio.post("/api/projects/", body)["id"])
        ids: list[int | None] = [*add_tasks(studio, project_id, 300)] if mode == "reorder" else [None] * 300
        ranked = list(range(299, -1, -1))
        plan = plan_of(ranked, [ids[n] for n in ranked], mode=mode)
        with pytest.raises(LabelStudioUnreachable):
            publish(killing, project_id, plan, TASK)
        killing.killer.join()
        # From the main thread: the kernel ends a child with the thread that started it.
        own_server.start()
        own_server.wait_ready()

        published = publish(studio, project_id, plan, TASK)

        assert_stands_once(studio, project_id, plan, published.task_ids)
