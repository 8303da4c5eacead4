"""nextbatch models quantise: a project's encoder in int8, where that is as good."""

import json
from typing import TYPE_CHECKING, Annotated

import typer

from backend.cli.progress import progress, say

if TYPE_CHECKING:
    from backend.rounds.quantise import Quantised


def quantise(
    project: Annotated[str, typer.Argument(help="The project's name, as in its YAML.")],
    use: Annotated[bool, typer.Option("--use", help="Change the project over to it if it passes.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Make the encoder's int8 form with the project's images, and check it against fp32; what does not pass is dropped.

    Interrupted, the next call goes on from there.
    """
    from backend.cli.models import actor
    from backend.database import project_named, reading, transaction
    from backend.rounds.quantise import quantise_encoder
    from backend.rounds.quantise import use as change_over

    with reading() as session:
        project_id = project_named(session, project).id
    with progress("images") as tell:
        made = quantise_encoder(project_id, actor(), tell, say)
    if as_json:
        print(json.dumps({"encoder": made.spec.digest if made.spec else None, **made.report()}, indent=2))
    else:
        _print(made)
    made.refuse()
    if use:
        with transaction() as session:
            change_over(session, project_named(session, project))
    if not as_json and use:
        print(f"{project} changes over to it beside its rounds: nextbatch status {project}")
    elif not as_json:
        print("To use it, run this again with --use, or put into the YAML:\nencoder:\n  precision: int8")


def _print(made: "Quantised") -> None:
    found = made.found
    print(f"items     {found.items} checked, {made.calibration} others calibrated, {made.left_out} could not be read")
    print(
        f"probe     {found.exact_accuracy:.4f} in fp32, {found.accuracy:.4f} in int8, on {found.labels} labels "
        f"(difference, 95 %: {found.interval.low:+.4f} to {found.interval.high:+.4f})"
    )
    print(f"doubted   {found.overlap:.1%} of the {found.doubted} least confident are the same")
    print(f"cosine    {found.mean_cosine:.4f} on average, {found.least_cosine:.4f} at worst")
    speeds = ", ".join(f"{name} {speed:.0f}" for name, speed in made.images_per_s.items())
    print(f"speed     {speeds} images a second and thread")
    if made.spec is not None:
        print(f"encoder   {made.spec.digest}: passed")
