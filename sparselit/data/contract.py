"""What a task promises, checked: every mistake of a plug-in becomes one line that names its class and method."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from sparselit.data.splits import Example
from sparselit.data.tokenizer import Tokenizer
from sparselit.errors import SparselitError

T = TypeVar("T")


def guarded(method: str, function: Callable[[], T]) -> T:
    """The value of ``function()``; whatever it raises becomes an error that names the method.

    Args:
        method: class and method, as in ``Copying.sample()``.
        function: calls the plug-in.
    """
    try:
        return function()
    except SparselitError:
        raise
    except Exception as error:
        message = " ".join(str(error).split())[:200]
        raise SparselitError(f"{method} raised {type(error).__name__}: {message}") from error


def typed(method: str, value: object) -> Example:
    """``value`` if it is an example; otherwise an error that names the method.

    Args:
        method: class and method, as in ``Copying.sample()``.
        value: what it has returned.

    Raises:
        SparselitError: it is no example.
    """
    if not isinstance(value, Example):
        raise SparselitError(f"{method} must give an Example(prompt, answer, wrong, …), got {value!r:.100}")
    return value


@dataclass(frozen=True)
class Contract:
    """What the examples of one task have to keep.

    Attributes:
        tokenizer: cuts prompts into tokens.
        max_length: tokens in the longest prompt.
        strata: names of the strata.
    """

    tokenizer: Tokenizer
    max_length: int
    strata: tuple[str, ...]

    def check(self, method: str, example: Example) -> None:
        """Raise where ``example`` breaks the contract.

        Args:
            method: class and method that gave it.
            example: the example.
        """
        fault = self._fault(example)
        if fault:
            raise SparselitError(f"{method}: {fault}, in the example {tuple(example)!r:.200}")

    def _fault(self, example: Example) -> str | None:
        prompt, answer, wrong, corrupted, stratum = example
        if not isinstance(prompt, str) or not prompt:
            return "the prompt must be a text of at least one token"
        if not (corrupted is None or isinstance(corrupted, str)):
            return "the corrupted prompt must be a text or null"
        words, other = self.tokenizer.words(prompt), self.tokenizer.words(corrupted or "")
        if len(words) > self.max_length:
            return f"the prompt has {len(words)} tokens and max_length is {self.max_length}"
        for key, text in (("prompt", prompt), ("corrupted", corrupted or "")):
            try:
                self.tokenizer.encode(text)
            except KeyError as error:
                return f"{error.args[0]!r} of the {key} is not in the vocabulary"
        if not self._is_token(answer):
            return f"the answer {answer!r} is not one token of the vocabulary"
        if not self._is_token(wrong):
            return f"the wrong answer {wrong!r} is not one token of the vocabulary"
        if answer == wrong:
            return f"the answer and the wrong answer are both {answer!r}"
        if corrupted is not None and len(other) != len(words):
            return f"the corrupted prompt has {len(other)} tokens and the prompt {len(words)}"
        if corrupted == prompt:
            return "the corrupted prompt equals the prompt"
        if stratum not in self.strata:
            return f"the stratum {stratum!r} is not one of {', '.join(self.strata)}"
        return None

    def _is_token(self, text: object) -> bool:
        try:
            return isinstance(text, str) and len(self.tokenizer.encode(text)) == 1
        except KeyError:
            return False
