"""What commands tell while they work: on stderr, so that their answers can be piped."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import Progress, TextColumn

console = Console(stderr=True, highlight=False)


def say(line: str) -> None:
    """One line."""
    console.print(line, soft_wrap=True)


@contextmanager
def progress(what: str) -> Iterator[Callable[[int, int, str], None]]:
    """A bar for (done, total, the last one) in a terminal, plain lines elsewhere."""
    if not console.is_terminal:
        yield lambda done, total, last: say(f"{done} of {total} {what}{': ' + last if last else ''}")
        return
    with Progress(*Progress.get_default_columns(), TextColumn("{task.fields[last]}"), console=console) as bar:
        task = bar.add_task(what, total=None, last="")
        yield lambda done, total, last: bar.update(task, completed=done, total=total, last=last)
