"""The set-up that is looked at: settings, one connection, and answers that are asked for once."""

from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import sqlalchemy as sa

from backend.database import Batch, Pick, Project, Round, reading
from backend.errors import MissingSetting
from backend.rounds.source import open_studio
from backend.settings import settings
from backend.studio import connect
from backend.studio.client import Parameters, Studio

TIMEOUT_S = 10.0
BACKENDS_TIMEOUT_S = 60.0  # Label Studio calls each backend of the project before it answers


class Site:
    """This machine and its Label Studio. `healthy` are the names of the checks that found no fault."""

    def __init__(self) -> None:
        self.process = settings()
        self.healthy: set[str] = set()
        self._studio: Studio | None = None
        self._kept: dict[str, Any] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._studio is not None:
            self._studio.close()

    @property
    def url(self) -> str:
        """Where Label Studio reaches us. Raises MissingSetting."""
        if not self.process.url:
            raise MissingSetting(name="NEXTBATCH_URL", mend="Set it to web's address as Label Studio sees it.")
        return self.process.url.rstrip("/")

    @property
    def login(self) -> tuple[str, str] | None:
        """Basic auth of the ML backend."""
        if not (self.process.username and self.process.password):
            return None
        return self.process.username, self.process.password.get_secret_value()

    @property
    def secret(self) -> str | None:
        return self.process.webhook_secret.get_secret_value() if self.process.webhook_secret else None

    @property
    def studio(self) -> Studio:
        """Label Studio, impatient. Raises MissingSetting."""
        if self._studio is None:
            self._studio = open_studio()
            self._studio.timeout_s = TIMEOUT_S
        return self._studio

    def ask(self, path: str, params: Parameters | None = None, timeout_s: float | None = None) -> Any:
        """Label Studio's answer, asked for once until something was mended."""
        key = f"{path} {params}"
        if key not in self._kept:
            self._kept[key] = self.studio.get(path, params, timeout_s)
        return self._kept[key]

    def forget(self) -> None:
        """Something was changed: ask anew."""
        self._kept.clear()


@dataclass(frozen=True)
class ProjectSite:
    """One project of the set-up."""

    site: Site
    project: Project

    @property
    def id(self) -> int:
        """Label Studio's. Raises MissingSetting."""
        if self.project.studio_project_id is None:
            mend = f"Run: nextbatch seed configs/{self.project.name}.yaml"
            raise MissingSetting(name="the Label Studio project", mend=mend)
        return self.project.studio_project_id

    @property
    def path(self) -> str:
        return f"/api/projects/{self.id}/"

    def page(self) -> dict[str, Any]:
        """The project as Label Studio has it."""
        page: dict[str, Any] = self.site.ask(self.path)
        return page

    def backends(self) -> list[dict[str, Any]]:
        """All ML backends of the project. Asking makes Label Studio call them."""
        listed: list[dict[str, Any]] = self.site.ask("/api/ml/", {"project": self.id}, BACKENDS_TIMEOUT_S)
        return listed

    def ours(self) -> dict[str, Any] | None:
        """Our entry among them."""
        return next((one for one in self.backends() if str(one["url"]).rstrip("/") == self.site.url), None)

    def webhooks(self) -> list[dict[str, Any]]:
        return connect.webhooks(self.site.studio, self.id)

    def connect(self) -> None:
        """Make our entry among the ML backends, or bring it up to date."""
        user, password = self.site.login or (None, None)
        title = connect.backend_title(self.project.name)
        connect.ensure_backend(self.site.studio, self.id, self.site.url, title, user, password)

    def last_round(self) -> Round | None:
        newest = sa.select(Round).where(Round.project_id == self.project.id).order_by(Round.number.desc()).limit(1)
        with reading() as session:
            return session.scalar(newest)

    def is_publishing(self) -> bool:
        """Whether a round is changing right now what orders the queue."""
        last = self.last_round()
        return last is not None and last.state == "running" and last.step == "publish"

    def published(self) -> Batch | None:
        """The batch that people work on."""
        newest = sa.select(Batch).where(Batch.project_id == self.project.id, Batch.state == "published")
        with reading() as session:
            return session.scalar(newest.order_by(Batch.number.desc()).limit(1))

    def size(self, batch: Batch) -> int:
        with reading() as session:
            return session.scalar(sa.select(sa.func.count()).select_from(Pick).where(Pick.batch_id == batch.id)) or 0
