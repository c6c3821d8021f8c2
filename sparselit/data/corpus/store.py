"""A corpus as tokens on disk: made once, kept by content, and read without loading it."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from sparselit.data.corpus.byte_pairs import BytePairs, Bytes, tokenizer_of, train_byte_pairs
from sparselit.data.corpus.documents import Document, Gathered
from sparselit.data.splits import split_of
from sparselit.errors import SparselitError
from sparselit.runs.atomic import write_bytes, write_text
from sparselit.runs.plain_file import read_json, read_text

SplitBy = Literal["file", "package"]
_FORMAT = 1
_DESCRIPTION, _TOKENIZER = "corpus.json", "tokenizer.json"
_TOKEN = np.dtype("<u2")
_NAMES = ("train", "discovery", "selection", "report")


@dataclass(frozen=True)
class Corpus:
    """The tokens of a corpus in four splits that share no text.

    Attributes:
        folder: where its files are.
        tokenizer: text to tokens and back.
        description: what stands in ``corpus.json``: hash, licences, settings, files, tokens and bytes by split.
    """

    folder: Path
    tokenizer: Bytes | BytePairs
    description: dict[str, Any]

    @property
    def hash(self) -> str:
        """SHA-256 over the names and contents of all texts."""
        return str(self.description["hash"])

    def tokens(self, split: str) -> np.ndarray:
        """The texts of a split one after the other, uint16 (token,), mapped into memory; token 0 ends each text."""
        return np.memmap(self.folder / f"{split}.bin", _TOKEN, "r")


def open_corpus(folder: Path) -> Corpus:
    """A corpus that :func:`prepare` has written.

    Args:
        folder: its folder.

    Raises:
        SparselitError: it is none, or one of its files is not as it was written.
    """
    try:
        description = read_json(folder / _DESCRIPTION)
        content = read_text(folder / _TOKENIZER)
        sizes = {split: (folder / f"{split}.bin").stat().st_size for split in _NAMES}
        whole = all(sizes[split] == _TOKEN.itemsize * description["tokens"][split] for split in _NAMES)
        known = description["format"] == _FORMAT and description["tokenizer"] == _digest(content)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SparselitError(f"{folder} is no prepared corpus ({type(error).__name__}: {error})") from error
    if not whole or not known:
        raise SparselitError(f"{folder} is no whole corpus of this version: delete the folder, and it is made anew")
    return Corpus(folder, tokenizer_of(content), description)


def prepare(
    root: Path,
    collection: Gathered,
    vocab: int,
    *,
    whole: Sequence[str] = (),
    split_by: SplitBy = "file",
    train_share: float = 0.9,
    tokenizer: Bytes | BytePairs | None = None,
    announce: Callable[[str], object] = lambda text: None,
) -> Corpus:
    """Cut a collection into tokens, or take what an earlier call has made of the same texts and settings.

    Args:
        root: folder of all corpora; this one's folder is named after its content.
        collection: the texts.
        vocab: tokens in the vocabulary; 256 for bytes.
        whole: texts that are to be one token each.
        split_by: what is held out as a whole: a file, or all files of a package.
        train_share: share of these that is trained on, in (0, 1).
        tokenizer: one that was learned before; default: it is learned from what is trained on.
        announce: called with a line before what takes seconds.

    Raises:
        SparselitError: a split is left without enough text, or the vocabulary is too small.
    """
    settings: dict[str, Any] = {
        "vocab": vocab,
        "whole": sorted(whole),
        "split_by": split_by,
        "train_share": train_share,
    }
    if tokenizer is not None:
        settings.update(vocab=tokenizer.size, whole=[], tokenizer=_digest(tokenizer.content()))
    key = _digest(json.dumps({"format": _FORMAT, "hash": collection.hash, **settings}, sort_keys=True))[:16]
    folder = root / key
    if (folder / _DESCRIPTION).is_file():
        return open_corpus(folder)
    split = {d.name: split_of(d.name if split_by == "file" else d.package, train_share) for d in collection.documents}
    texts = {name: [d for d in collection.documents if split[d.name] == name] for name in _NAMES}
    missing = [name for name in _NAMES if not texts[name]]
    if missing:
        raise SparselitError(
            f"{len(collection.documents)} texts are too few to split by {split_by}: none is left for {missing[0]};"
            " give more files, or a smaller data.train_share"
        )
    announce(f"cutting {sum(len(d.text) for d in collection.documents) / 1e6:.1f} MB of text into tokens ({folder})")
    learned = (d.text for d in texts["train"])
    if tokenizer is None:
        tokenizer = Bytes() if vocab == 256 else train_byte_pairs(learned, vocab, whole)
    tokens = {name: _joined(tokenizer, texts[name]) for name in _NAMES}
    counts = np.array(tokenizer.byte_counts)
    description = {
        "format": _FORMAT,
        "hash": collection.hash,
        "tokenizer": _digest(tokenizer.content()),
        "settings": settings,
        "licences": collection.licences,
        "left out": dict(sorted(collection.dropped.items())),
        "tokens": {name: len(tokens[name]) for name in _NAMES},
        "bytes": {name: int(counts[tokens[name]].sum()) for name in _NAMES},
        "packages": {name: dict(sorted(Counter(d.package for d in texts[name]).items())) for name in _NAMES},
        "files": {name: [d.name for d in texts[name]] for name in _NAMES},
    }
    for name in _NAMES:
        write_bytes(folder / f"{name}.bin", tokens[name].tobytes())
    write_text(folder / _TOKENIZER, tokenizer.content())
    write_text(folder / _DESCRIPTION, json.dumps(description, indent=1, ensure_ascii=False) + "\n")  # last: it is whole
    return Corpus(folder, tokenizer, description)


def _joined(tokenizer: Bytes | BytePairs, documents: Sequence[Document]) -> np.ndarray:
    """The texts' tokens one after the other, each text ended by token 0."""
    rows = tokenizer.encode_all([document.text for document in documents])
    return np.concatenate([np.array([*row, 0], dtype=_TOKEN) for row in rows])


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
