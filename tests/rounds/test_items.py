"""What items are follows from the labelling configuration; what does not fit it is refused with the way out."""

import asyncio
from pathlib import Path

import pytest
import sqlalchemy as sa

from backend.database import Item, Project, reading, transaction
from backend.errors import BadLabelConfig, EncoderMismatch, PathForbidden
from backend.pool import catalog
from backend.pool.sources import SourceConfig
from backend.rounds.items import encoder_for, opened
from backend.rounds.restock import list_items
from backend.settings import EncoderSection, ProjectConfig
from backend.studio.labels import LabelTask, image_config, text_config

CHOICES = ("ham", "spam")
INLINE, ADDRESSED = LabelTask.parse(text_config(CHOICES)), LabelTask.parse(text_config(CHOICES, is_inline=False))


def test_the_encoder_follows_what_is_shown_unless_it_is_named() -> None:
    auto, weights = EncoderSection(), EncoderSection(weights=Path("mine.pt"))

    assert encoder_for("image", auto).name == "efficientnet-lite0"
    assert encoder_for("text", auto).name == "all-minilm-l6-v2"
    assert encoder_for("text", weights).weights == Path("mine.pt")
    assert encoder_for("image", EncoderSection(name="resnet18")).name == "resnet18"
    with pytest.raises(EncoderMismatch, match="resnet18, which encodes images, and the items are texts"):
        encoder_for("text", EncoderSection(name="resnet18"))


@pytest.mark.parametrize("text", ["plain", "/etc/passwd", "http://127.0.0.1/", "two\nlines"])
def test_a_text_in_a_task_is_never_an_address(text: str) -> None:
    async def read(*, is_inline: bool, uri: str) -> bytes:
        async with opened(SourceConfig(), is_inline) as fetch:
            return await fetch(uri)

    assert asyncio.run(read(is_inline=True, uri=text)) == text.encode()
    with pytest.raises(PathForbidden):
        asyncio.run(read(is_inline=False, uri="/etc/passwd"))


def test_text_files_are_listed_for_texts_behind_addresses_only(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert home
    pool = tmp_path / "pool"
    pool.mkdir()
    for name in ("a.txt", "b.TXT", "c.jpg", "d"):
        (pool / name).write_bytes(b"x")
    monkeypatch.setenv("NEXTBATCH_DATA_ROOT", str(tmp_path))
    config = ProjectConfig.model_validate({"name": "p", "pool": {"source": "folder", "path": str(pool)}})

    texts, images = list_items(config, ADDRESSED), list_items(config, LabelTask.parse(image_config(CHOICES)))

    assert texts is not None
    assert images is not None
    assert [item.uri[-5:] for item in texts] == ["a.txt", "b.TXT"]
    assert [item.uri[-5:] for item in images] == ["c.jpg"]
    assert texts.skipped.lines()[0].startswith("left out 2: not named .txt")
    with pytest.raises(BadLabelConfig, match='Set valueType="url"'):
        list_items(config, INLINE)


def test_a_manifest_may_hold_the_texts(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert home
    (tmp_path / "mails.csv").write_text('body,from\n"Dear all,\nsee below",ann\nhttp://not.an/address,bob\n')
    monkeypatch.setenv("NEXTBATCH_DATA_ROOT", str(tmp_path))
    pool = {"source": "manifest", "path": "mails.csv", "uri_field": "body"}

    listing = list_items(ProjectConfig.model_validate({"name": "p", "pool": pool}), INLINE)

    assert listing is not None
    assert [(item.uri, item.data) for item in listing] == [
        ("Dear all,\nsee below", {"from": "ann"}),
        ("http://not.an/address", {"from": "bob"}),
    ]


def test_what_no_database_holds_is_replaced(store: str) -> None:
    hostile = "a\0b \ud800 c"
    with transaction() as session:
        project = Project(name="p", config={"name": "p"}, label_config=text_config(CHOICES))
        session.add(project)
        session.flush()
        new = catalog.NewItem(catalog.storable(hostile), {"text": hostile}, task_id=1)
        catalog.add_items(session, project.id, [new])

    with reading() as session:
        item = session.scalars(sa.select(Item)).one()

    assert store
    assert item.uri == "a\ufffdb \ufffd c"
    assert item.data["text"].replace("\0", "") == "ab \ud800 c"
