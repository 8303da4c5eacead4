"""Bytes become tokens as the published tokenizer makes them, within limits, or a reason why not."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backend.errors import ItemUnreadable, PackageMissing, TextBroken, TextTooLarge
from backend.learning.architectures import ARCHITECTURES
from backend.pool import texts
from backend.pool.texts import MAX_BYTES, Tokenizer, decode, filled

LONGEST = 256


@pytest.fixture(scope="module")
def file() -> Path:
    path = ARCHITECTURES["all-minilm-l6-v2"].tokenizer()
    assert path is not None
    return path


@pytest.fixture(scope="module")
def tokenizer(file: Path) -> Tokenizer:
    return Tokenizer(file, LONGEST)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty"),
        (b" \r\n\t\xc2\xa0", "empty"),
        (b"\xef\xbb\xbf\n", "empty"),
        (b"caf\xe9 au lait", "byte 3 is not UTF-8"),
        (b"\xc0\xaf overlong", "byte 0 is not UTF-8"),
        (b"\xed\xa0\x80 half a pair", "byte 0 is not UTF-8"),
        (b"PK\x03\x04\x00\x00", "2 of its 6 bytes are zero"),
        ("Gruß".encode("utf-16-le"), "4 of its 8 bytes are zero"),
        ("Grüße".encode("utf-16"), "UTF-16"),
        (b"\x01\x02\x03", "control characters"),
        (b"x" * (MAX_BYTES + 1), f"more than the limit of {MAX_BYTES}"),
    ],
)
def test_what_is_no_text_says_why(tokenizer: Tokenizer, data: bytes, reason: str) -> None:
    with pytest.raises((TextBroken, TextTooLarge), match=reason):
        tokenizer(data)


@given(data=st.binary(max_size=300))
def test_any_bytes_are_tokens_or_unreadable(tokenizer: Tokenizer, data: bytes) -> None:
    try:
        tokens = tokenizer(data)
    except ItemUnreadable:
        return

    used = np.flatnonzero(tokens)
    assert tokens.dtype == np.int32
    assert len(tokens) == filled(len(used))
    assert (used == np.arange(len(used))).all()  # no zero inside: zeros are where the text ended


@settings(max_examples=40, deadline=None)
@given(
    words=st.lists(st.sampled_from(["sun", "Überraschung", "x" * 150, "日本", "a.b", "é", "  "]), min_size=1),
    n=st.integers(1, 4_000),
)
def test_a_long_text_is_cut_where_the_whole_of_it_would_be(file: Path, words: list[str], n: int) -> None:
    text = " ".join(words * (1 + n // len(words)))[: texts.MAX_CHARACTERS]
    whole = texts._read(file).encode(text).ids
    expected = whole if len(whole) <= LONGEST else [*whole[: LONGEST - 1], whole[-1]]
    if len(whole) < 3:
        return

    tokens = Tokenizer(file, LONGEST)(text.encode())

    assert tokens[: len(expected)].tolist() == expected
    assert not tokens[len(expected) :].any()


def test_a_byte_order_mark_changes_nothing(tokenizer: Tokenizer) -> None:
    assert decode(b"\xef\xbb\xbfone") == "one"
    np.testing.assert_array_equal(tokenizer(b"\xef\xbb\xbfa cat"), tokenizer(b"a cat"))


def test_a_stray_zero_is_left_out(tokenizer: Tokenizer) -> None:
    np.testing.assert_array_equal(tokenizer(b"a cat sits\0 here"), tokenizer(b"a cat sits here"))


def test_a_text_cannot_name_the_tokens_of_the_network(tokenizer: Tokenizer, file: Path) -> None:
    special = {token["id"] for token in json.loads(file.read_text())["added_tokens"]}

    tokens = tokenizer(b"before [SEP] [PAD] [MASK] [CLS] after")

    assert special & set(tokens.tolist()) == {0, 101, 102}
    assert sorted(np.flatnonzero(np.isin(tokens, [101, 102]))) == [0, np.flatnonzero(tokens)[-1]]


def test_a_blob_is_one_unknown_word(tokenizer: Tokenizer) -> None:
    blob = b"QmFzZTY0" * (MAX_BYTES // 8)

    tokens = tokenizer(blob)

    assert np.count_nonzero(tokens) == 3  # begin, one unknown word, end


@given(length=st.integers(1, LONGEST))
def test_filling_is_little_and_lengths_are_few(length: int) -> None:
    assert 0 <= filled(length) - length < max(8, length / 2)
    assert filled(filled(length)) == filled(length)
    assert len({filled(n) for n in range(1, LONGEST + 1)}) == 16


def test_without_the_package_the_message_names_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tokenizers", None)

    with pytest.raises(PackageMissing, match=r"pip install 'nextbatch\[text\]'"):
        Tokenizer(tmp_path / "tokenizer.json", LONGEST)
