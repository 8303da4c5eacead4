"""nextbatch models fine-tune: train a project's encoder further on its labels."""

import json
from dataclasses import asdict
from typing import Annotated

import typer

from backend.cli.progress import progress, say


def fine_tune(
    project: Annotated[str, typer.Argument(help="The project's name, as in its YAML.")],
    use: Annotated[bool, typer.Option("--use", help="Change the project over to the new encoder.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Train the project's encoder on its labels, as its YAML says; interrupted, the next call goes on from there."""
    from backend.cli.models import actor
    from backend.database import project_named, reading, transaction
    from backend.rounds.fine_tune import fine_tune as train
    from backend.rounds.fine_tune import use as change_over

    with reading() as session:
        project_id = project_named(session, project).id
    told: list[tuple[int, int, str]] = []

    with progress("steps") as tell:

        def changed(done: int, total: int, what: str) -> None:
            if told[-1:] != [(done, total, what)]:
                told[:] = [(done, total, what)]
                tell(done, total, what)

        found = train(project_id, actor(), changed)
    assert found is not None  # nothing here cancels it
    if use and found.spec is not None:
        with transaction() as session:
            change_over(session, project_named(session, project), found)
    if as_json:
        digest = found.spec.digest if found.spec else None
        answer = {"encoder": digest, "weights": str(found.weights) if found.weights else None}
        print(json.dumps({**answer, "skipped": found.skipped, "outcome": asdict(found.outcome)}, indent=2))
        return
    history, best = found.outcome.history, found.outcome.best_epoch
    if found.skipped:
        say(f"{found.skipped} labelled images could not be read and were left out")
    print(f"before   {history[0]}\nafter    {history[best]} (epoch {best} of {len(history) - 1})")
    if found.spec is None:
        print("No epoch was better than the encoder as it is: there is no new one.")
        return
    print(f"encoder  {found.spec.digest}\nThese are labels that only said when to stop; the holdout was not looked at.")
    if use:
        print(f"{project} changes over to it beside its rounds: nextbatch status {project}")
        return
    print("To use it, run this again with --use, or put into the YAML:")
    print(f"encoder:\n  name: {found.spec.name}\n  weights: {found.weights}")
