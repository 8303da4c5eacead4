"""``python -m backend.cli`` is ``nextbatch``."""

from backend.cli import main

main()
