"""Which tensors are sparsified, and how many of their entries stay: exact budgets from a density and rules."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Literal, get_args

import torch
from torch import nn

from sparselit.errors import SparselitError, check_whole
from sparselit.sparsity.distribution import Distribution, Shares
from sparselit.sparsity.projection import Per, floor_need, line_name
from sparselit.sparsity.schedule import Schedule, as_schedule, check_density


@dataclass
class Rule:
    """What happens to the parameters whose name matches a pattern; of several rules the first match wins.

    Args:
        match: glob on the full parameter name, such as ``*.mlp.up.weight``.
        density: target of these tensors: ``default`` takes the callback's density for those tensors that it would
            sparsify anyway; a number in (0, 1] is reached on the callback's schedule; a mapping is a schedule of its
            own, a list one in stages; null keeps them dense. Anything but ``default`` and null sparsifies vectors too.
        floor: non-zero entries that each row or column keeps at least, inside the budget.
        per: what the floor counts: ``row`` (output neuron, dim 0), ``column`` (input channel, dim 1) or ``both``.
        distribution: how the matching tensors share their entries: ``uniform``, ``er`` or ``erk``; null as the
            callback says.

    Raises:
        SparselitError: a value is out of range; the message names it.
    """

    match: str
    density: float | Schedule | list[Schedule] | Literal["default"] | None = "default"
    floor: int = 0
    per: Per = "row"
    distribution: Distribution | None = None

    def __post_init__(self) -> None:
        where = f"rules: {self.match!r}"
        if isinstance(self.density, list):
            self.density = as_schedule(self.density)
        check_distribution(f"{where}: distribution", self.distribution or "uniform")
        if not isinstance(self.density, Schedule) and self.density not in (None, "default"):
            check_density(f"{where}: density", self.density)
        check_whole(f"{where}: floor", self.floor, 0)
        if self.per not in ("row", "column", "both"):
            raise SparselitError(f"{where}: per must be row, column or both, got {self.per!r}")
        if self.floor and self.density is None:
            raise SparselitError(f"{where}: a floor of {self.floor} has no meaning for dense tensors (density: null)")


@dataclass(frozen=True)
class Budget:
    """How many entries of one tensor stay.

    Args:
        name: full name of the parameter; of a shared one, the first.
        shape: its shape.
        density: its density over the run.
        floor: non-zero entries that each row or column keeps at least, inside the budget.
        per: what the floor counts.
        shares: the tensors that divide one budget with this one; None where it has its own.
        share_index: index of this tensor among them.
        rule: pattern of the rule that it follows, empty for none.
    """

    name: str
    shape: torch.Size
    density: Schedule
    floor: int = 0
    per: Per = "row"
    shares: Shares | None = None
    share_index: int = 0
    rule: str = ""

    @property
    def numel(self) -> int:
        """Number of entries."""
        return self.shape.numel()

    def parameter(self, module: nn.Module) -> nn.Parameter:
        """``module.get_parameter`` without its checks: several times a step, they would show in the profile."""
        *path, last = self.name.split(".")
        for part in path:
            module = module._modules[part]  # type: ignore[assignment]
        return module._parameters[last]  # type: ignore[return-value]

    def k(self, step: int, total_steps: int) -> int:
        """Number of entries that stay after ``step`` optimizer steps of a run of ``total_steps`` (-1: unknown).

        Args:
            step: number of applied optimizer steps.
            total_steps: optimizer steps of the run; -1 where the length is not known.
        """
        return self.entries(self.density.at(step, total_steps))

    def entries(self, density: float) -> int:
        """Number of entries that stay at a density of the whole budget."""
        if self.shares is None:
            return entries(density, self.numel)
        return self.shares.counts(entries(density, self.shares.numel))[self.share_index]

    def check(self) -> None:
        """Refuse a floor that does not fit into the lowest density of the run.

        Raises:
            SparselitError: names the tensor, the floor and the smallest density that fits.
        """
        try:
            need = floor_need(self.shape, self.floor, self.per)
        except SparselitError as error:
            raise SparselitError(f"{self.name}: {error}") from error
        if self.entries(self.density.lowest) < need:
            raise SparselitError(
                f"{self.name}: a floor of {self.floor} per {line_name(self.per)} of "
                f"shape {tuple(self.shape)} does not fit into density {self.density.lowest}; the smallest density that "
                f"fits is {self._smallest_density(need)}"
            )

    def _smallest_density(self, need: int) -> float:
        """The smallest density under which this tensor keeps ``need`` entries."""
        if self.shares is None:
            return smallest_density(need, self.numel)
        low, high = 0, self.shares.numel
        while low < high:  # no tensor loses an entry when the budget grows
            middle = (low + high) // 2
            low, high = (low, middle) if self.shares.counts(middle)[self.share_index] >= need else (middle + 1, high)
        return smallest_density(low, self.shares.numel)


def entries(density: float, numel: int) -> int:
    """The budget of a tensor: ``density * numel`` rounded half up, at least 1.

    Args:
        density: share in (0, 1].
        numel: number of entries of the tensor.
    """
    return min(numel, max(1, math.floor(density * numel + 0.5)))


def smallest_density(k: int, numel: int) -> float:
    """The smallest density of four significant digits whose budget is at least ``k`` of ``numel`` entries.

    Args:
        k: entries, at least 1.
        numel: entries of the tensor.
    """
    exact = (k - 0.5) / numel
    digits = 3 - math.floor(math.log10(exact))
    density = math.ceil(exact * 10**digits) / 10**digits
    while entries(density, numel) < k:  # the ceiling was rounded down
        density = round(density + 10**-digits, digits)
    return density


def check_distribution(key: str, distribution: str) -> None:
    """Refuse what is not the name of a distribution.

    Args:
        key: of the YAML, for the message.
        distribution: the value to check.

    Raises:
        SparselitError: names the key and the value.
    """
    if distribution not in get_args(Distribution):
        raise SparselitError(f"{key} must be uniform, er or erk, got {distribution!r}")


def plan(
    module: nn.Module,
    density: Schedule,
    rules: Sequence[Rule] | None = None,
    distribution: Distribution = "uniform",
) -> list[Budget]:
    """Decide which parameters of a module are sparsified, and to which density.

    By default every floating parameter with two or more dimensions is (embeddings and convolutions too), frozen ones
    included; vectors and scalars stay dense, and so does what a submodule lists in its attribute ``always_dense``
    (globs relative to that submodule). Rules come before these defaults. A shared (tied) parameter appears once; a
    rule may match it under any of its names.

    Args:
        module: any module.
        density: density of the tensors without a rule of their own.
        rules: exceptions; the first match wins.
        distribution: how the tensors of one schedule share their entries, unless their rule says otherwise.

    Returns:
        One budget per sparsified parameter, in the order of the module.

    Raises:
        SparselitError: a pattern matches nothing, a floor does not fit, or nothing is left to sparsify.
    """
    rules = list(rules or ())
    names = [name for name, _ in module.named_parameters(remove_duplicate=False)]
    for rule in rules:
        if not any(fnmatchcase(name, rule.match) for name in names):
            raise SparselitError(f"rules: {rule.match!r} matches no parameter{_suggestion(rule.match, names)}")
    budgets: list[Budget] = []
    kinds: list[Distribution] = []
    for aliases, parameter in _parameters(module):
        if isinstance(parameter, nn.parameter.UninitializedParameter):
            raise SparselitError(f"{aliases[0]} has no shape yet: run one forward pass of the lazy module first")
        if not (parameter.is_floating_point() or parameter.is_complex()) or parameter.numel() == 0:
            continue
        found = next((rule for rule in rules if any(fnmatchcase(name, rule.match) for name in aliases)), None)
        chosen = _density(found, density, parameter.ndim >= 2 and not _always_dense(module, aliases))
        if chosen is not None and parameter.is_complex():
            raise SparselitError(
                f"{aliases[0]} holds complex numbers, which are not sparsified; keep it dense with the rule "
                f"{{match: {aliases[0]}, density: null}}"
            )
        if chosen is not None:
            floor, per = (found.floor, found.per) if found else (0, "row")
            budgets.append(Budget(aliases[0], parameter.shape, chosen, floor, per, rule=found.match if found else ""))
            kinds.append((found and found.distribution) or distribution)
    budgets = _shared(budgets, kinds)
    for budget in budgets:
        budget.check()
    if not budgets:
        raise SparselitError(f"no parameter of {type(module).__name__} is left to sparsify: every one is kept dense")
    return budgets


def _shared(budgets: Sequence[Budget], kinds: Sequence[Distribution]) -> list[Budget]:
    """The budgets, those with one schedule and one distribution other than uniform joined."""
    groups: dict[tuple[str, str], list[int]] = {}
    for index, (budget, kind) in enumerate(zip(budgets, kinds, strict=True)):
        if kind != "uniform":
            groups.setdefault((kind, repr(budget.density)), []).append(index)
    shared = list(budgets)
    for (name, _), members in groups.items():
        shares = Shares(name, tuple(tuple(budgets[i].shape) for i in members))  # type: ignore[arg-type]
        for number, index in enumerate(members):
            shared[index] = replace(shared[index], shares=shares, share_index=number)
    return shared


def _density(rule: Rule | None, density: Schedule, by_default: bool) -> Schedule | None:
    """The schedule of a parameter, None if it stays dense."""
    if rule is None or rule.density == "default":
        return density if by_default else None
    if rule.density is None or isinstance(rule.density, Schedule):
        return rule.density
    return density.towards(float(rule.density))  # type: ignore[arg-type]


def _parameters(module: nn.Module) -> Iterator[tuple[list[str], nn.Parameter]]:
    """Every parameter once, with all its names, the first one first."""
    aliases: dict[int, list[str]] = {}
    parameters = list(module.named_parameters(remove_duplicate=False))
    for name, parameter in parameters:
        aliases.setdefault(id(parameter), []).append(name)
    for name, parameter in parameters:
        if aliases[id(parameter)][0] == name:
            yield aliases[id(parameter)], parameter


def _always_dense(module: nn.Module, names: Sequence[str]) -> bool:
    """Whether a submodule keeps one of these names dense."""
    for prefix, submodule in module.named_modules():
        for pattern in getattr(type(submodule), "always_dense", ()):
            full = f"{prefix}.{pattern}" if prefix else pattern
            if any(fnmatchcase(name, full) for name in names):
                return True
    return False


def _suggestion(pattern: str, names: Sequence[str]) -> str:
    """The closest parameter name as the end of an error message."""
    bare = pattern.replace("*", "").strip(".")
    runs: dict[str, str] = {}  # every run of whole words within a name, so that a pattern's literal part finds its like
    for name in names:
        words = name.split(".")
        for begin in range(len(words)):
            for end in range(len(words), begin, -1):
                runs.setdefault(".".join(words[begin:end]), name)
    close = difflib.get_close_matches(bare, runs, n=1, cutoff=0.6)
    return f"; did you mean {runs[close[0]]!r}?" if close else f"; there are {', '.join(names[:5])}, …"
