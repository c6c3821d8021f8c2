"""Tokens of any text: bytes, or the pairs of bytes that are frequent in a corpus (byte-pair encoding)."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

from sparselit.errors import SparselitError
from sparselit.runs.plain_file import parse_json

#: Token 0 of every vocabulary here: it stands between two texts, and batches are padded with it.
END = "<|end|>"
#: A text is cut here before pairs are merged. Words keep one character before them (a space, a dot, an underscore);
#: brackets, quotes and other signs join each other and the end of the line, so that ``]\n`` can be one token; at most
#: three digits; indentation is apart from the line's end.
SPLIT = r"[ ._]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_WEIGHT = 10_000  # how often a text that must become one token is counted beside the corpus


class Bytes:
    """Every byte of the UTF-8 text is a token; a zero byte is the end of a text.

    Examples:
        >>> tokenizer = Bytes()
        >>> tokenizer.encode("hé"), tokenizer.decode([104, 195, 169])
        ([104, 195, 169], 'hé')
    """

    kind = "bytes"

    def __init__(self) -> None:
        self.vocabulary: Sequence[str] = [END, *(_name(bytes([byte])) for byte in range(1, 256))]
        self.size = 256
        self.byte_counts = [0, *[1] * 255]  # bytes that each token stands for

    def words(self, text: str) -> list[str]:
        """A name for each byte."""
        return [self.vocabulary[byte] for byte in text.encode()]

    def encode(self, text: str) -> list[int]:
        """The bytes of a text.

        Raises:
            KeyError: the text holds a zero byte.
        """
        if "\0" in text:
            raise KeyError("\0")
        return list(text.encode())

    def encode_all(self, texts: Sequence[str]) -> list[list[int]]:
        """The tokens of many texts."""
        return [self.encode(text) for text in texts]

    def decode(self, tokens: Iterable[int]) -> str:
        """The text of some bytes; what is no UTF-8 becomes a replacement character."""
        return bytes(token for token in tokens if token).decode(errors="replace")

    def content(self) -> str:
        """What :func:`tokenizer_of` makes the tokenizer from."""
        return json.dumps({"kind": self.kind})


class BytePairs:
    """Byte-pair encoding of UTF-8 text by the ``tokenizers`` library.

    Args:
        content: the tokenizer as that library writes it, JSON.

    Attributes:
        vocabulary: each token as text; a token that is no whole UTF-8 text is named by its bytes, as in ``<0xE2>``.
        size: number of tokens.
        byte_counts: number of bytes that each token stands for; 0 for the end of a text.

    Raises:
        SparselitError: the library is missing, or the content is not of this kind.
    """

    kind = "byte pairs"

    def __init__(self, content: str) -> None:
        try:
            self._inside = _library().Tokenizer.from_str(content)
            self._inside.encode_special_tokens = True  # a text that spells the end's name is a text
            names = {token: name for name, token in parse_json(content)["model"]["vocab"].items()}
            pieces = [_bytes_of(names[token]) if token else b"" for token in range(len(names))]
        except SparselitError:
            raise
        except Exception as error:
            raise SparselitError(f"this is no tokenizer of sparselit: {' '.join(str(error).split())[:100]}") from error
        self._content = content
        self.vocabulary: Sequence[str] = _all_different([END, *map(_name, pieces[1:])])
        self.size = len(pieces)
        self.byte_counts = list(map(len, pieces))

    def words(self, text: str) -> list[str]:
        """A name for each token."""
        return [self.vocabulary[token] for token in self.encode(text)]

    def encode(self, text: str) -> list[int]:
        """The tokens of a text; every text has some."""
        return list(self._inside.encode(text, add_special_tokens=False).ids)

    def encode_all(self, texts: Sequence[str]) -> list[list[int]]:
        """The tokens of many texts."""
        return [list(found.ids) for found in self._inside.encode_batch(list(texts), add_special_tokens=False)]

    def decode(self, tokens: Iterable[int]) -> str:
        """The text of some tokens, without the ends of texts."""
        return str(self._inside.decode([int(token) for token in tokens], skip_special_tokens=True))

    def content(self) -> str:
        """What :func:`tokenizer_of` makes the tokenizer from."""
        return self._content


def train_byte_pairs(texts: Iterable[str], size: int, whole: Sequence[str] = ()) -> BytePairs:
    """Learn the merges of a corpus.

    Args:
        texts: the corpus.
        size: tokens in the vocabulary, above 257 (the bytes and the end of a text come first).
        whole: texts that are to be one token each, such as the answers of a task; they are counted as if the corpus
            held them often. One that :data:`SPLIT` cuts cannot be.

    Raises:
        SparselitError: the vocabulary is too small, or one of ``whole`` did not become a token.
    """
    library = _library()
    tokenizer = library.Tokenizer(library.models.BPE())
    split = library.pre_tokenizers.Split(library.Regex(SPLIT), behavior="isolated")
    plain = library.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = library.pre_tokenizers.Sequence([split, plain])
    tokenizer.decoder = library.decoders.ByteLevel()
    trainer = library.trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=[END],
        initial_alphabet=sorted(library.pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    seeds = (text for text in whole for _ in range(_WEIGHT))
    tokenizer.train_from_iterator((text for source in (texts, seeds) for text in source), trainer)
    found = BytePairs(tokenizer.to_str())
    missing = [text for text in whole if len(found.encode(text)) != 1]
    if missing:
        raise SparselitError(f"a vocabulary of {size} has no single token for {missing[0]!r}; make data.vocab larger")
    return found


def tokenizer_of(content: str) -> Bytes | BytePairs:
    """The tokenizer that was kept.

    Args:
        content: what its ``content()`` gave.

    Raises:
        SparselitError: it is none, or its library is missing.
    """
    try:
        kind = parse_json(content).get("kind")
    except (ValueError, AttributeError) as error:
        raise SparselitError("this is no tokenizer of sparselit: not a JSON object") from error
    return Bytes() if kind == Bytes.kind else BytePairs(content)


def _library() -> Any:
    try:
        import tokenizers
    except ImportError as error:
        raise SparselitError("byte pairs need: pip install 'sparselit[text]'; or set data.vocab to 256") from error
    return tokenizers


def _alphabet() -> dict[str, int]:
    """The byte that each character of a byte-level vocabulary stands for, as GPT-2's vocabulary began it.

    Printable bytes stand for themselves, the others in their order for the characters from 256 on.
    """
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    return {**{chr(byte): byte for byte in printable}, **{chr(256 + i): byte for i, byte in enumerate(others)}}


_BYTE = _alphabet()


def _bytes_of(name: str) -> bytes:
    return bytes(_BYTE[character] for character in name)


def _name(piece: bytes) -> str:
    """A token as text."""
    try:
        text = piece.decode()
    except UnicodeDecodeError:
        text = ""
    return text or "".join(f"<0x{byte:02X}>" for byte in piece)


def _all_different(names: list[str]) -> list[str]:
    """The names, a second one of the same text marked by its number."""
    seen: set[str] = set()
    for i, name in enumerate(names):
        names[i] = name if name not in seen else f"{name}<{i}>"
        seen.add(names[i])
    return names
