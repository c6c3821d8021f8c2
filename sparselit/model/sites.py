"""Sites: named points of the forward pass at which activations are sparsified, recorded, ablated, patched, edited."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from fnmatch import fnmatchcase

import numpy as np
import torch
from torch import Tensor

from sparselit.errors import SparselitError

Edit = Callable[[Tensor], Tensor]


def abs_top_k(x: Tensor, k: int) -> Tensor:
    """Keep the ``k`` entries of largest magnitude on the last axis and set the rest to zero (Gao et al. 2025, §2).

    Args:
        x: activations (..., channel).
        k: entries kept, in [1, channels]; ``k >= channels`` returns ``x`` itself.

    Returns:
        Tensor of the shape of ``x``; gradients pass through the kept entries only.
    """
    width = x.shape[-1]
    if k >= width:
        return x
    if x.device.type == "cpu" and x.dtype in (torch.float32, torch.float64) and not torch.compiler.is_compiling():
        # NumPy selects with vector instructions, several times faster than torch here; a compiler cannot see into it.
        magnitude = x.detach().abs()
        smallest = np.partition(magnitude.numpy(), width - k, axis=-1)[..., width - k, None]
        threshold = torch.from_numpy(smallest)
        kept = magnitude >= threshold
        surplus = int(kept.count_nonzero()) > k * (x.numel() // width)
        if not surplus or not bool(((kept.sum(-1, keepdim=True) > k) & (threshold > 0)).any()):
            return torch.where(kept, x, 0.0)  # zeros that tie for rank ``k`` are zero either way
    index = x.abs().topk(k, dim=-1, sorted=False).indices
    return torch.zeros_like(x).scatter(-1, index, x.gather(-1, index))


class Site:
    """One named activation. With nothing attached it returns its input, or the input's AbsTopK where ``keep`` is set.

    Attributes:
        name: as in ``layers.0.attn.q``.
        width: channels on the last axis (keys for an attention pattern: 0).
        keep: entries that AbsTopK keeps on the last axis; None for all.
        before: edit of the value that arrives, before the activation function and AbsTopK; None for no edit.
        after: edit of the value that leaves; None for no edit.
    """

    __slots__ = ("activation", "after", "before", "keep", "name", "width")

    def __init__(self, name: str, width: int, activation: Edit | None = None) -> None:
        self.name = name
        self.width = width
        self.activation = activation
        self.keep: int | None = None
        self.before: Edit | None = None
        self.after: Edit | None = None

    def __repr__(self) -> str:
        return f"Site({self.name!r}, width={self.width}, keep={self.keep})"

    @property
    def attached(self) -> bool:
        """Whether anything reads or changes the activation here."""
        return self.before is not None or self.after is not None

    def __call__(self, x: Tensor) -> Tensor:
        """The activation as the rest of the model sees it, same shape as ``x``."""
        if self.before is not None:
            x = self.before(x)
        if self.activation is not None:
            x = self.activation(x)
        if self.keep is not None:
            x = abs_top_k(x, self.keep)
        if self.after is not None:
            x = self.after(x)
        return x


class Sites(dict[str, Site]):
    """The sites of one model in forward order, by name."""

    def add(self, name: str, width: int, activation: Edit | None = None) -> Site:
        """Create and register a site.

        Args:
            name: as in ``layers.0.attn.q``.
            width: channels on the last axis.
            activation: activation function that is applied at the site; None for none.
        """
        site = self[name] = Site(name, width, activation)
        return site

    def matching(self, pattern: str) -> list[Site]:
        """The sites whose names match a glob; none is a :class:`SparselitError`."""
        found = [site for name, site in self.items() if fnmatchcase(name, pattern)]
        if not found:
            raise SparselitError(f"site {pattern!r} matches nothing; the model's sites are {', '.join(self)}")
        return found

    @contextmanager
    def edited(
        self, after: Mapping[str, Edit] | None = None, before: Mapping[str, Edit] | None = None
    ) -> Iterator[None]:
        """Attach edits for the duration of a ``with`` block, on top of those that are attached already.

        Args:
            after: edit of the value that leaves each named site.
            before: edit of the value that arrives at each named site.
        """
        saved = [(site, site.before, site.after) for site in self.values()]
        try:
            for edits, attribute in ((after or {}, "after"), (before or {}, "before")):
                for name, edit in edits.items():
                    if name not in self:
                        raise SparselitError(f"no site is called {name!r}; the model's sites are {', '.join(self)}")
                    setattr(self[name], attribute, _chain(getattr(self[name], attribute), edit))
            yield
        finally:
            for site, before_edit, after_edit in saved:
                site.before, site.after = before_edit, after_edit

    @contextmanager
    def recorded(self, names: Iterable[str] | None = None) -> Iterator[dict[str, Tensor]]:
        """Record activations as they leave the sites; of several forward passes in the ``with`` block the last stays.

        Args:
            names: site names; None for every site, attention patterns included.
        """
        records: dict[str, Tensor] = {}

        def keep(name: str) -> Edit:
            def record(x: Tensor) -> Tensor:
                records[name] = x
                return x

            return record

        with self.edited(after={name: keep(name) for name in (self if names is None else names)}):
            yield records


def _chain(first: Edit | None, second: Edit) -> Edit:
    if first is None:
        return second
    return lambda x: second(first(x))
