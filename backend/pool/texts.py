"""The one place where a text's bytes become tokens: rounds, /predict and backtests see the same.

The network reads a text's first `longest` tokens. They are filled up with zeros to one of sixteen lengths, so that
texts of about one length share a minibatch and little of it is filling. Torch is not imported.
"""

from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from backend.errors import PackageMissing, TextBroken, TextTooLarge

if TYPE_CHECKING:
    import tokenizers

MAX_BYTES = 2**20
MAX_CHARACTERS = 2**16  # of a text, that are looked at: blobs without a space make few tokens of many characters
_HEAD = 2**13  # characters that nearly always hold more tokens than the network reads
_LONGEST_WORD = 100  # characters, and so tokens; what is longer is one unknown token
_MOST_ZEROS = 0.1
_FEWEST = 3  # the tokenizer's own begin and end, and one of the text's

Tokens = npt.NDArray[np.int32]


def decode(data: bytes) -> str:
    """UTF-8 as text, without a byte-order mark. Raises TextTooLarge, and TextBroken which says what is wrong."""
    if len(data) > MAX_BYTES:
        raise TextTooLarge(size=len(data), limit=MAX_BYTES)
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise TextBroken(problem="it is UTF-16; save it as UTF-8")
    zeros = data.count(0)  # a stray one, as e-mails have them, is left out by the tokenizer
    if zeros > len(data) * _MOST_ZEROS:
        raise TextBroken(problem=f"{zeros} of its {len(data)} bytes are zero, so it is another kind of file")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise TextBroken(problem=f"byte {error.start} is not UTF-8; save it as UTF-8") from None
    if not text.strip():
        raise TextBroken(problem="it is empty")
    return text


class Tokenizer:
    """A text's bytes to tokens, by a `tokenizer.json`; may be called from several threads at once."""

    def __init__(self, path: Path, longest: int) -> None:
        """`longest` tokens are what the network reads. Raises PackageMissing, and OSError."""
        self._tokenizer = _read(path)
        self._longest = longest

    def __call__(self, data: bytes) -> Tokens:
        """int32 (n,), n ≤ `longest`, zeros behind the text's end. Raises TextBroken, TextTooLarge. O(n)."""
        text = decode(data)[:MAX_CHARACTERS]
        ids = self._ids(text[:_HEAD])
        if len(text) > _HEAD and len(ids) < self._longest + _LONGEST_WORD:  # the last word may have been cut
            ids = self._ids(text)
        if len(ids) < _FEWEST:
            raise TextBroken(problem="it holds control characters only")
        if len(ids) > self._longest:
            ids = [*ids[: self._longest - 1], ids[-1]]
        tokens = np.zeros(min(filled(len(ids)), self._longest), np.int32)
        tokens[: len(ids)] = ids
        return tokens

    def _ids(self, text: str) -> list[int]:
        found: list[int] = self._tokenizer.encode(text).ids
        return found


def filled(length: int) -> int:
    """The length that so many tokens are filled up to: the next multiple of 8, beyond 64 of 16, beyond 128 of 32."""
    step = 8 if length <= 64 else 16 if length <= 128 else 32
    return -(-length // step) * step


@lru_cache(maxsize=4)
def _read(path: Path) -> "tokenizers.Tokenizer":
    try:
        import tokenizers
    except ImportError:
        raise PackageMissing(what="Reading texts", package="tokenizers", extra="text") from None
    tokenizer = tokenizers.Tokenizer.from_file(str(path))
    tokenizer.no_truncation()  # the file asks for a padding and a length of its own
    tokenizer.no_padding()
    tokenizer.encode_special_tokens = True  # "[SEP]" in a text is five characters and no token of the network's
    return tokenizer
