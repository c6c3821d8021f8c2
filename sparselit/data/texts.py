"""The base of data that a language model learns from: texts, every next token of them, and behaviours to find in it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor

from sparselit.data.batches import Chunks, TrainingBatches, batches_of
from sparselit.data.behaviour import Behaviour
from sparselit.data.corpus.byte_pairs import BytePairs, Bytes, tokenizer_of
from sparselit.data.corpus.documents import Gathered
from sparselit.data.corpus.store import Corpus, SplitBy, open_corpus, prepare
from sparselit.data.examples import Examples, Sequences
from sparselit.data.task import Task
from sparselit.errors import SparselitError, check_choice, check_range, check_seed, check_whole, suggestion
from sparselit.runs.cache import cache_folder
from sparselit.runs.shipped import TOKENIZER, shipped_models

#: The split of a behaviour that holds texts of the corpus instead of prompts: what means can be taken over.
TEXTS = "texts"
_LARGEST_BATCH, _LONGEST, _LARGEST_VOCABULARY, _MOST_WORKERS = 2**20, 2**16, 2**16, 128


class Texts(LightningDataModule):
    """Texts in windows of equally many tokens; the loss is over every next token.

    A subclass says which texts. They are split by file or by package, cut into tokens once, and kept in the user's
    cache folder by their content. A training batch is a function of (seed, k): windows at random places. Held-out
    texts are cut into windows that follow each other, of which each split takes some at equal distances.

    Args:
        batch_size: windows per training batch, at least 1.
        context: tokens in a window, at least 2; prompts may not be longer.
        vocab: tokens in the vocabulary: 256 for bytes, or byte pairs (``pip install 'sparselit[text]'``).
        split_by: what is held out as a whole: ``file``, or ``package`` (stricter).
        train_share: share of the files or packages that is trained on, in (0, 1).
        held_out: most windows of the split that validates training; the report split takes four times as many.
        behaviours: tasks whose circuits are sought in the model, by the same vocabulary.
        texts: windows of held-out text that each behaviour gets as a further split, ``texts``: mean ablation can take
            its means there (``circuits.ablation: {kind: mean, distribution: texts}``); 0 for none.
        tokenizer: file of a tokenizer that was learned before, or name of a shipped model, whose tokenizer it is; null
            learns one from the texts.
        prepared: folder of a corpus that was cut before, on another machine perhaps; the texts are not looked for then.
        seed: chooses the windows; what is held out is the same for every seed.
        num_workers: processes that make batches.

    Raises:
        SparselitError: a number is out of range.
    """

    def __init__(
        self,
        batch_size: int = 32,
        context: int = 256,
        vocab: int = 1024,
        split_by: SplitBy = "file",
        train_share: float = 0.9,
        held_out: int = 256,
        behaviours: Sequence[Task] = (),
        texts: int = 0,
        tokenizer: str | None = None,
        prepared: str | None = None,
        seed: int = 0,
        num_workers: int = 0,
    ) -> None:
        super().__init__()
        check_whole("data.batch_size", batch_size, 1, most=_LARGEST_BATCH)
        check_whole("data.context", context, 2, most=_LONGEST)
        check_whole("data.vocab", vocab, 256, most=_LARGEST_VOCABULARY)
        check_choice("data.split_by", split_by, ("file", "package"))
        check_range("data.train_share", train_share, 0, 1, above=True, below=True)
        check_whole("data.held_out", held_out, 1, most=_LARGEST_BATCH)
        check_whole("data.texts", texts, 0, most=_LARGEST_BATCH)
        check_seed("data.seed", seed)
        check_whole("data.num_workers", num_workers, 0, most=_MOST_WORKERS)
        self.save_hyperparameters(logger=False, ignore=["behaviours"])
        self.batch_size, self.context, self.seed, self.num_workers = batch_size, context, seed, num_workers
        self._behaviours = tuple(behaviours)
        self._restored: tuple[Bytes | BytePairs, str] | None = None  # what a checkpoint says of the corpus

    # ---- what a subclass writes

    def collection(self) -> Gathered:
        """The texts."""
        raise SparselitError(f"{type(self).__name__} must define collection()")

    #: Texts that are to be one token each, such as the answers of the behaviours.
    whole: Sequence[str] = ()

    @cached_property
    def tasks(self) -> dict[str, Task]:
        """The tasks whose circuits are sought, by name."""
        return {type(task).__name__: task for task in self._behaviours}

    # ---- tokens

    @cached_property
    def corpus(self) -> Corpus:
        """The tokens of all splits; the first time they are made."""
        settings = self.hparams
        if settings["prepared"] is not None:
            return open_corpus(Path(settings["prepared"]))
        return prepare(
            cache_folder() / "corpora",
            self.collection(),
            settings["vocab"],
            whole=self.whole,
            split_by=settings["split_by"],
            train_share=settings["train_share"],
            tokenizer=self._given,
            announce=print,
        )

    @property
    def tokenizer(self) -> Bytes | BytePairs:
        """Text to tokens and back: that of the checkpoint where one was restored, one that was given, or learned."""
        return self._restored[0] if self._restored else self._given or self.corpus.tokenizer

    @cached_property
    def _given(self) -> Bytes | BytePairs | None:
        """The tokenizer that ``data.tokenizer`` names."""
        name = self.hparams["tokenizer"]
        if name is None:
            return None
        path = shipped_models()[name] / TOKENIZER if name in shipped_models() else Path(name)
        try:
            return tokenizer_of(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise SparselitError(f"data.tokenizer: cannot read {name!r}: neither a file nor a shipped model") from error

    @property
    def vocabulary(self) -> Sequence[str]:
        """A name for each token."""
        return self.tokenizer.vocabulary

    @property
    def vocab_size(self) -> int:
        """Number of tokens."""
        return self.tokenizer.size

    @property
    def max_length(self) -> int:
        """Tokens in a window."""
        return self.context

    @property
    def byte_counts(self) -> list[int]:
        """Number of bytes of text that each token stands for: losses per byte compare different vocabularies."""
        return self.tokenizer.byte_counts

    def encode(self, text: str) -> list[int]:
        """The tokens of a text."""
        return self.tokenizer.encode(text)

    def decode(self, tokens: Iterable[int] | Tensor) -> str:
        """The text of some tokens."""
        return self.tokenizer.decode(torch.as_tensor(tokens).tolist())

    # ---- splits and batches

    def windows(self, split: str, most: int) -> Sequences:
        """Windows of a held-out split that do not overlap.

        Args:
            split: discovery, selection or report.
            most: how many, at equal distances from the first to the last.

        Raises:
            SparselitError: the split holds less than one window.
        """
        tokens = self.corpus.tokens(split)
        n = len(tokens) // self.context
        if n == 0:
            raise SparselitError(
                f"the {split} split holds {len(tokens)} tokens, less than one window of data.context {self.context};"
                " give more text or a shorter context"
            )
        index = np.unique(np.linspace(0, n - 1, min(n, most)).round().astype(np.int64))
        rows = np.stack([tokens[i * self.context : (i + 1) * self.context] for i in index]).astype(np.int64)
        return Sequences(torch.from_numpy(rows), torch.full((len(rows),), self.context))

    def train_dataloader(self) -> TrainingBatches:
        """Training batches without end; a resumed run goes on with the batch that comes next."""
        return batches_of(self.trainer, self.batches(), self.num_workers)

    def batches(self) -> Callable[[int], Sequences]:
        """The training batches: batch k as a function of k."""
        tokens = self.corpus.tokens("train")
        if len(tokens) < self.context:
            raise SparselitError(f"{len(tokens)} tokens to train on are less than data.context {self.context}")
        return WindowBatch(tokens, self.context, self.batch_size, self.seed)

    def val_dataloader(self) -> Chunks:
        """Windows of the selection split, whole on every rank."""
        return Chunks(self.windows("selection", self.hparams["held_out"]), self.batch_size)

    def test_dataloader(self) -> list[Chunks]:
        """Windows of the report split."""
        return [Chunks(self.windows("report", 4 * self.hparams["held_out"]), self.batch_size)]

    # ---- behaviours

    def behaviours(self, only: Sequence[str] = ()) -> dict[str, Behaviour]:
        """The behaviour of each task in this vocabulary.

        Args:
            only: names of those that are wanted; all where it is empty.
        """
        unknown = [name for name in only if name not in self.tasks]
        if unknown:
            raise SparselitError(f"no behaviour is called {unknown[0]!r}{suggestion(unknown[0], list(self.tasks))}")
        return {name: self.behaviour(name) for name in only or self.tasks}

    def behaviour(self, name: str) -> Behaviour:
        """One of the behaviours.

        Args:
            name: of the task's class.
        """
        task = self.tasks[name]
        task.tokenizer = self.tokenizer
        found = task.behaviour()
        longest = max(int(examples.length.max()) for examples in found.splits.values())
        if longest > self.context:
            raise SparselitError(f"a prompt of {name} has {longest} tokens, more than data.context {self.context}")
        return replace(found, splits={**found.splits, **self._texts()}, task={**found.task, "corpus": self._hash})

    def _texts(self) -> dict[str, Examples]:
        """The further split: windows whose last token is the answer."""
        if not self.hparams["texts"]:
            return {}
        tokens = self.windows("discovery", self.hparams["texts"]).tokens
        before, answer = tokens[:, :-1].contiguous(), tokens[:, -1].contiguous()
        length, wrong = torch.full_like(answer, before.shape[1]), (answer + 1) % self.vocab_size
        return {TEXTS: Examples(before, length, answer, wrong, before, torch.zeros_like(answer))}

    @property
    def _hash(self) -> str:
        return self._restored[1] if self._restored else self.corpus.hash

    # ---- Lightning

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint has to remember: the tokenizer, and which texts it was trained on."""
        return {
            "vocabulary": list(self.vocabulary),
            "tokenizer": self.tokenizer.content(),
            "corpus_hash": self._hash,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take the checkpoint's tokenizer; refuse to go on training on other texts."""
        self._restored = tokenizer_of(state_dict["tokenizer"]), str(state_dict["corpus_hash"])
        if self.trainer is not None and self.trainer.training and self.corpus.hash != self._restored[1]:
            raise SparselitError(
                "the checkpoint was trained on other texts than there are now (packages or files changed);"
                " give data.prepared, or begin a new run"
            )


class WindowBatch:
    """Batch k of a long row of tokens: windows at places drawn with replacement.

    Args:
        tokens: (token,) integers, mapped into memory.
        context: tokens in a window.
        batch_size: windows per batch.
        seed: batch k is a function of (seed, k).
    """

    def __init__(self, tokens: np.ndarray, context: int, batch_size: int, seed: int) -> None:
        self.tokens, self.context, self.batch_size, self.seed = tokens, context, batch_size, seed
        self._step = np.arange(context)

    def __call__(self, k: int) -> Sequences:
        """Batch ``k``."""
        rng = np.random.default_rng((self.seed, k))
        begin = rng.integers(len(self.tokens) - self.context + 1, size=self.batch_size)
        rows = self.tokens[begin[:, None] + self._step].astype(np.int64)
        return Sequences(torch.from_numpy(rows), torch.full((self.batch_size,), self.context))
