"""A project's configuration as it is stored: compared, replaced, and every version of it kept."""

import difflib

from sqlalchemy.orm import Session

import strategies
from backend import configuration
from backend.database import Project, ProjectSettings, lock_project
from backend.rounds import changes
from backend.settings import ProjectConfig
from backend.studio.labels import LabelTask


def difference(project: Project, config: ProjectConfig) -> str:
    """How `config` differs from what is stored, as a unified diff of their YAML; empty where it does not."""
    before, after = configuration.dump(project.settings), configuration.dump(config)
    return "\n".join(difflib.unified_diff(before.splitlines(), after.splitlines(), "stored", "new", lineterm=""))


def replace(session: Session, project: Project, config: ProjectConfig) -> str:
    """Store `config` as the next version, unless it is what is stored. Returns the difference.

    Another encoder in it is loaded, checked and encoded with beside the one in use first: see `changes`. Raises
    strategies.WrongTask for a strategy that is not made for the project's question.
    """
    check_strategy(config, project.label_config)
    lock_project(session, project.id)
    found, before = difference(project, config), project.settings.encoder
    if found:
        project.config = config.model_dump(mode="json")
        project.config_version += 1
        session.add(settings_row(project))
    changes.follow_configuration(session, project, before)
    return found


def check_strategy(config: ProjectConfig, label_config: str) -> None:
    """Raises strategies.WrongTask where the strategy is not made for what people are asked."""
    if label_config:
        strategy = strategies.create(config.strategy.name, **config.strategy.parameters)
        strategies.check_task(strategy, LabelTask.parse(label_config).task)


def settings_row(project: Project) -> ProjectSettings:
    """The row that keeps the project's present configuration."""
    return ProjectSettings(project_id=project.id, version=project.config_version, config=project.config)
