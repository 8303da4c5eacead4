"""What users' whole models say of the candidates that are worth asking about, kept in a vector store of its own."""

import asyncio
from typing import Any

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray
from PIL import Image

from backend.database import Item, Project, reading
from backend.errors import FullModelUnfit
from backend.pool.catalog import Candidates, chunks
from backend.pool.decode import decode
from backend.rounds.encoding import source_config
from backend.rounds.items import opened
from backend.scoring.full_models import FullModels
from backend.scoring.pipeline import Scan, ScanItem
from backend.scoring.servers import addresses
from backend.scoring.vectors import VectorStore
from backend.settings import ModelsSection, settings
from backend.studio.labels import LabelTask


def answers(
    project_id: int,
    section: ModelsSection,
    pool: Candidates,
    probabilities: NDArray[np.float32],
    classes: tuple[str, ...],
) -> NDArray[np.float32]:
    """Probabilities (T, n, K) of T draws for the pool's items; NaN for those that were not asked about, or failed.

    Asked about are the `section.shortlist` items of which the head, with `probabilities` (n, K) for `classes`, is the
    least sure (entropy). What was answered once is kept by content, so another round asks about new ones only.
    Raises FullModelUnfit, EncoderDown.
    """
    with reading() as session:
        project = session.get_one(Project, project_id)
    task = LabelTask.parse(project.label_config)
    servers = addresses(settings().triton_url or "")
    if not section.names or not servers or task.kind != "image":
        problem = "images, TRITON_URL and strategy.models.names are needed"
        raise FullModelUnfit(name=", ".join(section.names) or "no model", problem=problem)
    labels = [label for label in task.choices if label in classes]
    if len(labels) != len(task.choices):
        raise FullModelUnfit(name=", ".join(section.names), problem="the head has not seen all of the project's labels")
    models = FullModels(servers[0], section.names, section.draws, len(task.choices))
    entropy = -(probabilities * np.log(np.maximum(probabilities, 1e-12))).sum(axis=1)
    asked = np.sort(np.argsort(-entropy, kind="stable")[: section.shortlist])
    store = VectorStore(settings().home / "vectors", models.digest, models.dims)
    try:
        _ask(project, models, store, pool, asked)
        hashes = [pool.hashes[at] for at in asked]
        located = store.locate(hashes)
        there = asked[located >= 0]
        found = store.gather(located[located >= 0]).astype(np.float32)
    finally:
        store.close()
    said = np.full((len(section.names) * section.draws, len(pool.ids), len(classes)), np.nan, np.float32)
    columns = [classes.index(label) for label in task.choices]
    said[:, there] = 0
    shaped = found.reshape(len(there), -1, len(columns)).transpose(1, 0, 2)
    said[:, there[:, None], columns] = shaped
    return said


def _ask(project: Project, models: FullModels, store: VectorStore, pool: Candidates, asked: NDArray[np.intp]) -> None:
    unknown = asked[store.locate([pool.hashes[at] for at in asked]) < 0]
    uris: dict[int, str] = {}
    for chunk in chunks(pool.ids[unknown].tolist()):
        with reading() as session:
            rows = session.execute(sa.select(Item.id, Item.uri).where(Item.id.in_(chunk)))
            uris |= {row.id: row.uri for row in rows}
    side, is_exact = models.side, models.is_exact

    def pixels(data: bytes) -> NDArray[Any]:
        image = decode(data, side)
        if not is_exact or len(image) == side:
            return image
        return np.asarray(Image.fromarray(image).resize((side, side), Image.Resampling.BILINEAR))

    async def run() -> None:
        async with opened(source_config(project.settings), is_inline=False) as fetch:
            scan = Scan(fetch, pixels, models, store, lambda _done: None, lambda _failed: None)
            await scan.run([ScanItem(id_, uri) for id_, uri in uris.items()], len(uris))

    if uris:
        with store.held():
            asyncio.run(run())
