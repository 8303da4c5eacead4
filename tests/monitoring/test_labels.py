"""The checks read every label that stands, on both databases, and know which items were drawn at random."""

import datetime as dt

from backend.database import Annotation, Batch, Item, Pick, Project, Round, reading, transaction
from backend.monitoring import labels
from backend.monitoring.arrivals import samples

DAY = dt.datetime(2026, 5, 1, tzinfo=dt.UTC)


def test_labels_come_in_the_order_given_and_tell_the_random_draws(store: str) -> None:
    with transaction() as session:
        project = Project(name="p", config={"name": "p"})
        session.add(project)
        session.flush()
        items = [
            Item(project_id=project.id, key=f"k{n}", uri=f"u{n}", content_hash=f"h{n}", state="encoded")
            for n in range(4)
        ]
        items[3].created_at = DAY
        round_ = Round(project_id=project.id, number=1, workflow_id="r1")
        session.add_all([*items, round_])
        session.flush()
        batch = Batch(project_id=project.id, round_id=round_.id, number=1, version="v0+b1", strategy="margin")
        session.add(batch)
        session.flush()
        session.add_all(
            Pick(batch_id=batch.id, rank=n, item_id=item.id, is_random_slice=n == 1) for n, item in enumerate(items)
        )
        for number, (item, label, deleted) in enumerate(
            [(2, "cat", None), (1, "dog", None), (0, None, None), (0, "cat", DAY), (1, "cat", None)]
        ):
            at = DAY - dt.timedelta(hours=number)
            known = {"external_id": number, "created_at": at, "updated_at": at, "deleted_at": deleted}
            session.add(Annotation(project_id=project.id, item_id=items[item].id, label=label, **known))

    with reading() as session:
        found = labels.read(session, project.id)
        known, new = samples(session, project.id, DAY)

    assert [(one.annotation_id, one.label, one.is_random) for one in found] == [
        (4, "cat", True),
        (1, "dog", True),
        (0, "cat", False),
    ]
    assert (known, new) == (["h3"], ["h0", "h1", "h2"])
