"""Tokens of texts: there and back for any text, whole answers, names that differ."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparselit.data.corpus.byte_pairs import END, Bytes, tokenizer_of, train_byte_pairs
from sparselit.data.tokenizer import Tokenizer
from sparselit.errors import SparselitError

TEXTS = ["for i, x in enumerate(range(10)):\n    total += x['key']\n", "if x == [[1, 2]]:\n        return café\n"] * 5
WHOLE = ("]]\n", " enumerate", ".add")


@pytest.fixture(scope="module")
def pairs():
    pytest.importorskip("tokenizers")
    return train_byte_pairs(TEXTS, 300, WHOLE)


TOKENIZERS = pytest.mark.parametrize("name", ["bytes", "pairs"])


def get(name, request):
    return Bytes() if name == "bytes" else request.getfixturevalue("pairs")


@TOKENIZERS
def test_any_text_comes_back_and_its_bytes_are_counted(name, request):
    tokenizer = get(name, request)

    @given(st.text(alphabet=st.characters(blacklist_characters="\0", blacklist_categories=["Cs"])))
    def check(text):
        tokens = tokenizer.encode(text)
        assert tokenizer.decode(tokens) == text
        assert sum(tokenizer.byte_counts[token] for token in tokens) == len(text.encode())
        assert len(tokenizer.words(text)) == len(tokens)

    check()


@TOKENIZERS
def test_it_is_a_tokenizer_whose_names_differ_and_that_is_kept_as_text(name, request):
    tokenizer = get(name, request)
    assert isinstance(tokenizer, Tokenizer)
    assert len(set(tokenizer.vocabulary)) == tokenizer.size == len(tokenizer.vocabulary)
    assert (tokenizer.vocabulary[0], tokenizer.byte_counts[0]) == (END, 0)
    again = tokenizer_of(tokenizer.content())
    assert again.encode(TEXTS[1]) == tokenizer.encode(TEXTS[1])
    assert again.encode_all(TEXTS) == [tokenizer.encode(text) for text in TEXTS]


def test_whole_texts_are_one_token_each_also_where_the_corpus_hardly_has_them(pairs):
    assert [len(pairs.encode(text)) for text in WHOLE] == [1, 1, 1]
    assert pairs.words("[[1, 2]]\n")[-1] == "]]\n"


def test_the_name_of_the_end_in_a_text_is_text(pairs):
    assert 0 not in pairs.encode(f"a{END}b")
    assert pairs.decode(pairs.encode(f"a{END}b")) == f"a{END}b"


def test_a_vocabulary_without_room_is_one_line():
    pytest.importorskip("tokenizers")
    with pytest.raises(SparselitError, match=r"a vocabulary of 258 has no single token for .*make data.vocab larger"):
        train_byte_pairs(TEXTS, 258, WHOLE)


@pytest.mark.parametrize("content", ["", "{}", "[1]", '{"kind": "other"}', '{"model": {"vocab": {"a": 0}}}'])
def test_what_is_no_tokenizer_is_refused(content):
    pytest.importorskip("tokenizers")
    with pytest.raises(SparselitError, match="no tokenizer"):
        tokenizer_of(content)


def test_a_zero_byte_has_no_token():
    with pytest.raises(KeyError):
        Bytes().encode("a\0b")
