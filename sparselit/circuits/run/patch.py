"""Patches: channels of a site that have the values of another run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor

from sparselit.model.sites import Edit


class Patch(NamedTuple):
    """Some channels of a site, and the values that they have instead of their own.

    Attributes:
        channels: of the site.
        values: (example, position, channel of ``channels``), or (position, channel) where it is the same for all.
    """

    channels: Sequence[int]
    values: Tensor

    def of(self, part: slice) -> Patch:
        """The patch of some of the examples."""
        return self if self.values.ndim == 2 or len(self.values) == 1 else Patch(self.channels, self.values[part])


def taken(other: Tensor, channels: Sequence[int]) -> Patch:
    """The patch that gives some channels of a site their values in another run.

    Args:
        other: the other run's activation, (example, position, channel).
        channels: those that are replaced.
    """
    return Patch(list(channels), other[..., list(channels)])


def patched(patch: Patch) -> Edit:
    """The edit that puts the values in place."""
    channels = list(patch.channels)

    def edit(x: Tensor) -> Tensor:
        x = x.clone()
        x[..., channels] = patch.values
        return x

    return edit
