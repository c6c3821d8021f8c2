"""The base of every task: a subclass says what an example is, the base makes batches, splits and tensors of it."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any, ClassVar, Literal, overload

import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor

from sparselit.data.batches import Chunks, PoolBatch, TrainingBatches, batches_of
from sparselit.data.behaviour import Behaviour
from sparselit.data.contract import Contract, guarded, typed
from sparselit.data.examples import Examples
from sparselit.data.splits import (
    PATIENCE,
    SPLITS,
    Example,
    SplitName,
    Splits,
    different,
    mirror,
    shuffled_domain,
    with_mirrors,
)
from sparselit.data.tokenizer import LongestMatch, Tokenizer, to_tensors
from sparselit.errors import SparselitError, check_seed, check_whole

__all__ = ["Example", "Task"]

_POOL = 32768  # training prompts drawn where they are used as a split although ``pool`` is null
_LARGEST_BATCH, _LARGEST_SPLIT, _MOST_WORKERS = 2**20, 10**7, 128
_CHUNK = 1024  # fewest examples per evaluation batch


class Task(LightningDataModule):
    """A behaviour to learn: a prompt, the right next token, and the wrong one that it competes with.

    A subclass sets ``vocabulary`` and ``max_length`` (as class attributes or in ``__init__``) and writes ``sample``
    (endless tasks) or ``examples`` (finite domains). ``docs/how_to/write_a_task.md`` writes one in ten minutes.

    Attributes:
        vocabulary: the words that prompts and answers are made of, most of them characters; a word's index is its
            token, and a text is cut at each position into the longest word that fits.
        tokenizer: cuts texts into tokens; by default the longest match in ``vocabulary``. One that is set brings its
            own vocabulary.
        max_length: tokens in the longest prompt, out-of-distribution prompts included. A finite domain is measured.
        strata: names of the kinds of prompt whose accuracies are reported apart.
        train_share: share of all prompts that may be trained on, in (0, 1); the others are held out.
        mirrored: every corrupted prompt is a prompt of the task too, of the same stratum and with ``wrong`` for its
            answer; the two are always drawn together, which balances the answers exactly.
        by_definition: what ``sparselit tasks --check`` would refuse and is what the task is about: the check's name,
            such as ``bag of characters``, and the reason.
        optimum: best possible accuracy, in (0, 1]; below 1 where the prompt does not decide the answer.

    Args:
        batch_size: examples per training batch, at least 1.
        seed: chooses the draws; what is held out is the same for every seed.
        pool: different prompts to train on, drawn up front; null takes fresh ones for ever (slower), or all that a
            finite domain holds.
        discovery: prompts of the split that circuits are searched on, at most.
        selection: prompts of the split that validates training and chooses between circuits, at most.
        report: prompts of the split that numbers for people come from, at most.
        num_workers: processes that make batches; 0 is fastest unless sampling is slow and ``pool`` is null.

    Raises:
        SparselitError: a number is out of range, or the subclass does not keep its contract.

    Examples:
        >>> from sparselit import Example, Task
        >>> class First(Task):
        ...     vocabulary, max_length = "ab=", 9
        ...
        ...     def sample(self, rng):
        ...         text = "".join(rng.choices("ab", k=8))
        ...         answer, wrong = ("a", "b") if text[0] == "a" else ("b", "a")
        ...         return Example(text + "=", answer, wrong, wrong + text[1:] + "=")
        >>> task = First(batch_size=4)
        >>> batch = next(iter(task.train_dataloader()))
        >>> batch.tokens.shape, task.decode(batch.tokens[0])[-1]
        (torch.Size([4, 9]), '=')
    """

    vocabulary: Sequence[str] = ()
    strata: tuple[str, ...] = ("all",)
    train_share: float = 0.5
    mirrored: bool = False
    by_definition: ClassVar[Mapping[str, str]] = {}
    optimum: float = 1.0
    _max_length: int | None = None
    _tokenizer: Tokenizer | None = None

    def __init__(
        self,
        batch_size: int = 128,
        seed: int = 0,
        pool: int | None = 32768,
        discovery: int = 1024,
        selection: int = 2048,
        report: int = 10000,
        num_workers: int = 0,
    ) -> None:
        super().__init__()
        self._sizes: dict[SplitName, int | None] = {"discovery": discovery, "selection": selection, "report": report}
        check_whole("data.batch_size", batch_size, 1, most=_LARGEST_BATCH)
        if pool is not None:
            check_whole("data.pool", pool, 1, most=_LARGEST_SPLIT)
        for key, value in self._sizes.items():
            check_whole(f"data.{key}", value, 1, most=_LARGEST_SPLIT)
        check_seed("data.seed", seed)
        check_whole("data.num_workers", num_workers, 0, most=_MOST_WORKERS)
        self.save_hyperparameters(logger=False)
        self.batch_size, self.seed, self.pool, self.num_workers = batch_size, seed, pool, num_workers
        self._tensors: dict[str, Examples | None] = {}

    @property
    def batch_size(self) -> int:
        """Examples per training batch; a batch size finder may change it before the first step."""
        return self._batch_size

    @batch_size.setter
    def batch_size(self, value: int) -> None:
        self._batch_size = value
        if "batch_size" in self.hparams:
            self.hparams["batch_size"] = value  # checkpoints say what was trained with

    # ---- what a subclass writes

    def sample(self, rng: random.Random) -> Example:
        """One example, a function of ``rng`` alone."""
        raise SparselitError(f"{self._name} must define sample(rng) or examples()")

    def examples(self) -> Iterable[Example] | None:
        """All examples of a finite domain, in any order; None draws from ``sample`` without end.

        A prompt may come several times with different corrupted prompts: one that lies in the same split is used.
        """
        return None

    def sample_out_of_distribution(self, rng: random.Random) -> Example | None:
        """One example of a kind that is never trained on; None where the task has none."""
        return None

    def family(self, prompt: str) -> str:
        """Prompts with the same family are never in different splits; by default every prompt is its own."""
        return prompt

    def solve(self, prompt: str) -> str | None:
        """The right answer, read off the prompt by other means than ``sample``; None where no such rule is written.

        Only ``sparselit tasks --check`` calls it: it compares every example and every corrupted prompt with it.
        """
        return None

    # ---- tokens

    @property
    def vocab_size(self) -> int:
        """Number of tokens."""
        return self.tokenizer.size

    @property
    def tokenizer(self) -> Tokenizer:
        """Text to tokens and back."""
        if self._tokenizer is None:
            self._tokenizer = LongestMatch(self.vocabulary, self._name)
        return self._tokenizer

    @tokenizer.setter
    def tokenizer(self, value: Tokenizer) -> None:
        self._tokenizer, self.vocabulary = value, value.vocabulary

    @property
    def max_length(self) -> int:
        """Tokens in the longest prompt, out-of-distribution prompts included."""
        if self._max_length is None:
            if self._domain is None:
                raise SparselitError(f"{self._name} needs a max_length: the number of tokens in its longest prompt")
            self._max_length = max(len(self.tokenizer.words(example.prompt)) for example in self._domain)
        return self._max_length

    @max_length.setter
    def max_length(self, value: int) -> None:
        self._max_length = value

    def encode(self, prompt: str) -> list[int]:
        """The tokens of a prompt; a character outside the vocabulary is an error that names it."""
        try:
            return self.tokenizer.encode(prompt)
        except KeyError as error:
            raise SparselitError(f"{error} in {prompt!r} is not in the vocabulary of {self._name}") from None

    def decode(self, tokens: Iterable[int] | Tensor) -> str:
        """The text of some tokens."""
        return self.tokenizer.decode(torch.as_tensor(tokens).tolist())

    # ---- splits

    @overload
    def split(self, name: SplitName) -> Examples: ...
    @overload
    def split(self, name: Literal["out_of_distribution"]) -> Examples | None: ...
    @overload
    def split(self, name: str) -> Examples | None: ...
    def split(self, name: str) -> Examples | None:
        """One of the disjoint splits, a function of the task's arguments.

        Args:
            name: train, discovery, selection, report or out_of_distribution.

        Returns:
            The examples; None for an out-of-distribution split that the task does not have.
        """
        if name not in self._tensors:
            if name == "out_of_distribution":
                drawn = self._draw_out_of_distribution()
            elif name in ("train", "discovery", "selection", "report"):
                drawn = self._splits.draw(name)  # type: ignore[arg-type]
                if not drawn:
                    raise SparselitError(
                        f"{self._name} has no prompt for its {name} split: its domain, or the number of different"
                        " corrupted prompts, is too small; make it larger, or let corrupted prompts come in pairs (all"
                        " that they link stays in one split)"
                    )
            else:
                raise SparselitError(
                    f"no split is called {name!r}: train, discovery, selection, report, out_of_distribution"
                )
            self._tensors[name] = to_tensors(drawn, self.tokenizer, self.strata) if drawn else None
        return self._tensors[name]

    def behaviour(self) -> Behaviour:
        """What a circuit search works on: the held-out splits, the vocabulary, and where they come from."""
        splits = {name: self.split(name) for name in SPLITS}
        return Behaviour(
            splits={name: examples for name, examples in splits.items() if examples is not None},
            vocabulary=list(self.vocabulary),
            strata=self.strata,
            task=self.origin,
        )

    def behaviours(self, only: Sequence[str] = ()) -> dict[str, Behaviour]:
        """What a model that learned this task has circuits of, by name; here one behaviour, whose name is empty.

        Args:
            only: there is nothing to choose from.

        Raises:
            SparselitError: a name is given.
        """
        if only:
            raise SparselitError(f"{self._name} is one behaviour; leave circuits.task out")
        return {"": self.behaviour()}

    @property
    def origin(self) -> dict[str, Any]:
        """Class path and arguments of this task, as plain values."""
        arguments = {key: value for key, value in self.hparams.items() if not key.startswith("_")}
        return {"class_path": self._class_path, "init_args": arguments}

    @property
    def chance(self) -> float:
        """Accuracy of guessing one of the answers, in (0, 0.5]."""
        answers = torch.cat([self.split(name).answer for name in ("train", "discovery", "selection", "report")])
        return 1 / max(2, len(answers.unique()))

    # ---- Lightning

    def train_dataloader(self) -> TrainingBatches:
        """Training batches without end; a resumed run goes on with the batch that comes next."""
        return batches_of(self.trainer, self.batches(), self.num_workers)

    def batches(self) -> Callable[[int], Examples]:
        """The training batches: batch k as a function of k."""
        if self.pool is None and self._domain is None:
            return self._fresh_batch
        return PoolBatch(self.split("train"), self.batch_size, self.seed)

    def val_dataloader(self) -> Chunks:
        """The selection split, whole on every rank."""
        return self._chunks(self.split("selection"))

    def test_dataloader(self) -> list[Chunks]:
        """The report split, and after it the out-of-distribution split where there is one."""
        both = (self.split("report"), self.split("out_of_distribution"))
        return [self._chunks(examples) for examples in both if examples is not None]

    def predict_dataloader(self) -> Chunks:
        """The report split."""
        return self._chunks(self.split("report"))

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint has to remember: the meaning of its tokens."""
        return {"vocabulary": list(self.vocabulary), "task": self._class_path}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Refuse a checkpoint of another task or another vocabulary."""
        for key, own in self.state_dict().items():
            other = state_dict.get(key)
            if other != own:
                own, other = ("".join(v) if isinstance(v, list) else v for v in (own, other))
                raise SparselitError(f"the checkpoint's {key} differs from the data's: {other!r} there, {own!r} here")

    # ---- inside

    @property
    def _name(self) -> str:
        return type(self).__name__

    @property
    def _class_path(self) -> str:
        return f"{type(self).__module__}.{type(self).__qualname__}"

    @cached_property
    def _contract(self) -> Contract:
        return Contract(self.tokenizer, self.max_length, self.strata)

    @cached_property
    def _domain(self) -> list[Example] | None:
        """All examples of a finite domain; None for an endless task."""
        method = f"{self._name}.examples()"
        domain = guarded(method, self.examples)
        if domain is None and type(self).sample is Task.sample:
            self.sample(random.Random())  # refuses
        if domain is None:
            return None
        listed = guarded(method, lambda: [typed(method, example) for example in domain])
        if not listed:
            raise SparselitError(f"{method} gives no example; make the domain larger through the task's arguments")
        return listed

    @cached_property
    def _splits(self) -> Splits:
        pool = _POOL if self.pool is None and self._domain is None else self.pool
        source: Iterator[Example]
        if self._domain is None:
            method, rng = f"{self._name}.sample()", random.Random(f"splits {self.seed}")
            source = (self._sampled(rng) for _ in itertools.count())
        else:
            method = f"{self._name}.examples()"
            source = shuffled_domain(self._domain, self.seed, method)
        source = with_mirrors(source) if self.mirrored else source
        return Splits(
            source, self.family, self._contract.check, {"train": pool, **self._sizes}, self.train_share, method
        )

    def _sampled(self, rng: random.Random) -> Example:
        method = f"{self._name}.sample()"
        return typed(method, guarded(method, lambda: self.sample(rng)))

    def _draw_out_of_distribution(self) -> list[Example]:
        method = f"{self._name}.sample_out_of_distribution()"
        rng = random.Random(f"out of distribution {self.seed}")

        def draw() -> Example | None:
            value = guarded(method, lambda: self.sample_out_of_distribution(rng))
            return None if value is None else typed(method, value)

        found = different(draw, self.hparams["report"], lambda one: self._splits.assign(one) not in ("train", None))
        for example in found:
            self._contract.check(method, example)
        return found

    def _fresh_batch(self, k: int) -> Examples:
        """Batch ``k`` of prompts that may be trained on, drawn now."""
        rng = random.Random(f"batch {self.seed} {k}")
        batch: list[Example] = []
        for _ in range(PATIENCE + 100 * self.batch_size):
            example = self._sampled(rng)
            if self._splits.assign(example) == "train":
                self._contract.check(f"{self._name}.sample()", example)
                batch += [example, mirror(example)] if self.mirrored else [example]
                if len(batch) >= self.batch_size:
                    return to_tensors(batch[: self.batch_size], self.tokenizer, self.strata)
        raise SparselitError(f"{self._name}.sample() gives too few prompts that may be trained on")

    def _chunks(self, examples: Examples) -> Chunks:
        return Chunks(examples, max(self.batch_size, _CHUNK))
