"""The indirect object of a sentence."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any, ClassVar

from sparselit.data.task import Example, Task
from sparselit.errors import check_whole

_NAMES = ("Ann", "Bob", "Cat", "Dan", "Eve", "Fay", "Gus", "Hal")
_OPENINGS = ("", "Then ", "Later ", "When ")
_MEETINGS = (" met. ", " had tea. ", " were here. ")
_GIFTS = (" gave tea to ", " sent a cup to ", " spoke to ")


class IndirectObject(Task):
    """Who receives: ``Then Ann and Bob had tea. Bob gave tea to `` → ``Ann``.

    After Wang et al. 2022. The words above are one token each. The corrupted prompt has the other name as the giver.
    Out of distribution three meet and two of them give.

    Args:
        names: how many different names there are, in [3, 8].
        kwargs: arguments of every task.
    """

    max_length = 10
    by_definition: ClassVar[Mapping[str, str]] = {"bag of characters": "the receiver is the name that occurs once"}

    def __init__(self, names: int = 8, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        check_whole("data.names", names, 3, 8)
        self.names = _NAMES[:names]
        self.vocabulary = [*self.names, " and ", ", ", *_OPENINGS[1:], *_MEETINGS, *_GIFTS]

    def sample(self, rng: random.Random) -> Example:
        """Two names, of which one gives."""
        one, other = rng.sample(self.names, 2)
        start = rng.choice(_OPENINGS) + f"{one} and {other}" + rng.choice(_MEETINGS)
        giver, receiver = rng.sample((one, other), 2)
        gift = rng.choice(_GIFTS)
        return Example(f"{start}{giver}{gift}", receiver, giver, f"{start}{receiver}{gift}")

    def sample_out_of_distribution(self, rng: random.Random) -> Example:
        """Three names, of which two give."""
        trio = rng.sample(self.names, 3)
        start, gift = "{}, {} and {}".format(*trio) + rng.choice(_MEETINGS), rng.choice(_GIFTS)
        one, receiver, other = rng.sample(trio, 3)
        return Example(f"{start}{one} and {other}{gift}", receiver, other, f"{start}{one} and {receiver}{gift}")

    def family(self, prompt: str) -> str:
        """All but the givers: a prompt and its corrupted one are in the same split."""
        start, meeting, end = next(prompt.partition(meeting) for meeting in _MEETINGS if meeting in prompt)
        return start + meeting + next(gift for gift in _GIFTS if end.endswith(gift))

    def solve(self, prompt: str) -> str:
        """The name that occurs once."""
        return next(name for name in self.names if prompt.count(name) == 1)
