"""Cutting an array into blocks of rows that fit into a fixed amount of memory."""

from collections.abc import Iterator

BLOCK_BYTES = 64 << 20
"""What one block's intermediate arrays may take. Two or three are alive at once."""


CACHE_BYTES = 1 << 20
"""What fits into a core's own cache: for arithmetic that goes over the same block several times."""


def blocks(rows: int, row_bytes: int, most: int | None = None) -> Iterator[slice]:
    """Slices that cover `rows`, each so short that `row_bytes` a row stay within BLOCK_BYTES (one row at least), and
    within `most` bytes where given."""
    step = max(1, min(BLOCK_BYTES, most or BLOCK_BYTES) // max(1, row_bytes))
    for start in range(0, rows, step):
        yield slice(start, min(start + step, rows))
