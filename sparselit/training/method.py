"""What a sparsity method defines, and what others read: budgets, living entries, how far the schedule has come."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal

from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from sparselit.errors import SparselitError
from sparselit.sparsity.budget import Budget, Rule, check_distribution, plan
from sparselit.sparsity.distribution import Distribution
from sparselit.sparsity.length import Length
from sparselit.sparsity.recomputed import refuse_recomputed
from sparselit.sparsity.schedule import Schedule, as_schedule
from sparselit.training.promise import Arrival, Promise
from sparselit.training.resumption import Course

#: What happens to the optimizer's moments of dead entries, see :class:`Sparsifier`.
Moments = Literal["keep", "mask", "reset"]

#: What the optimizer sees of the gradient of dead entries, see :class:`Sparsifier`.
Gradients = Literal["dense", "masked"]

#: A density of a callback: a number, a schedule, or a list of schedules one after the other.
Density = float | Schedule | list[Schedule]


class Method(ABC):
    """Decides which entries of a module's tensors live; :class:`Sparsifier` decides when.

    Subclasses implement :meth:`update` and, where the first masks differ, :meth:`start`.

    Args:
        density: share of non-zero weights in (0, 1], from the first step on; or a schedule ``{to: 0.02, ...}``; or a
            list of schedules, one after the other.
        rules: exceptions by parameter name; the first match wins. Without one, every parameter with at least two
            dimensions is sparsified and vectors stay dense.
        moments: the optimizer's moments (Adam, momentum): ``keep`` leaves them alone, ``mask`` zeroes them at dead
            entries after every step, ``reset`` zeroes them at an entry when it comes back to life.
        grads: the gradient that clipping and the optimizer see: ``dense``, so that dead entries may come back, or
            ``masked`` to the live ones.
        distribution: how the tensors share the living entries: ``uniform`` (one density), ``er`` or ``erk``
            (Erdős–Rényi: small matrices stay denser, the total is the same).

    Raises:
        SparselitError: a value is out of range; the message names it.
    """

    #: Whether the masks are part of the callback's state, because they do not follow from the weights.
    saves_masks: ClassVar[bool] = False
    #: Whether the method brings back earlier weights during the run.
    goes_back: ClassVar[bool] = False

    def __init__(
        self,
        density: Density,
        rules: list[Rule] | None = None,
        moments: Moments = "keep",
        grads: Gradients = "dense",
        distribution: Distribution = "uniform",
    ) -> None:
        if moments not in ("keep", "mask", "reset"):
            raise SparselitError(f"moments must be keep, mask or reset, got {moments!r}")
        if grads not in ("dense", "masked"):
            raise SparselitError(f"grads must be dense or masked, got {grads!r}")
        check_distribution("distribution", distribution)
        self.density = as_schedule(density)
        self.rules = list(rules or ())
        self.moments = moments
        self.grads = grads
        self.distribution = distribution
        self.step = 0  # applied optimizer steps, of all optimizers together
        self.masks: dict[str, Tensor] = {}  # live entries by tensor, where they are needed
        self.kept: dict[str, int] = {}  # entries that each tensor was left with, at most
        self.course = Course()  # the length of the run, and what its schedules have passed
        self.thresholds: dict[str, float] = {}  # limits of the last projection, hints for the next one
        self.promise = Promise(type(self).__name__)
        self._module: nn.Module | None = None
        self._budgets: list[Budget] | None = None
        self._handles: list[RemovableHandle] = []
        self._optimizers: Sequence[Optimizer] = ()
        self._watched: dict[str, Tensor] = {}  # all parameters that have to stay finite
        self._resumed = False
        self._unlogged = True  # nothing was logged by this process yet

    # -- what a subclass says ---------------------------------------------------------------------------------------

    @abstractmethod
    def update(self, tensors: Mapping[str, Tensor], step: int) -> Mapping[str, Tensor]:
        """Decide which entries live after an optimizer step.

        The base sets all others to zero. ``self.masks`` holds the masks of the step before where ``saves_masks`` is
        set; gradients are still there (``tensors[name].grad``). Must give the same result in every process.

        Args:
            tensors: the sparsified parameters by name, as the optimizer left them.
            step: number of applied optimizer steps, 1 after the first.

        Returns:
            Boolean masks by name, true where an entry lives.
        """

    def start(self, tensors: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Decide which entries live before the first step of a run that is not resumed.

        Args:
            tensors: the sparsified parameters by name.

        Returns:
            Boolean masks by name, true where an entry lives.
        """
        return self.update(tensors, self.step)

    def prepare(self, tensors: Mapping[str, Tensor], step: int) -> None:  # noqa: B027
        """Change the weights in place after an optimizer step, before it is decided which live; by default nothing.

        Args:
            tensors: the sparsified parameters by name, as the optimizer left them.
            step: number of applied optimizer steps, 1 after the first.
        """

    def cut(self, tensors: Mapping[str, Tensor], step: int) -> Mapping[str, Tensor] | None:
        """Set all but the live entries to exactly zero, in place.

        Args:
            tensors: the sparsified parameters by name.
            step: number of applied optimizer steps.

        Returns:
            Their masks; a faster way may give None where :attr:`needs_masks` is false.
        """
        masks = self.update(tensors, step)
        for name, weight in tensors.items():
            weight.masked_fill_(~masks[name], 0.0)
        return masks

    def before_step(self, tensors: Mapping[str, Tensor], step: int) -> None:  # noqa: B027
        """Look at the gradients of an optimizer step before they are masked and clipped; by default nothing.

        Args:
            tensors: the sparsified parameters by name; their gradients are those of the whole batch, the same in
                every process. Mixed precision may skip the step, which then comes again under the same number.
            step: number that the step has when it is applied, 1 for the first.
        """

    def reads_gradients(self, step: int) -> bool:
        """Whether :meth:`before_step` needs the gradient of dead entries in the step that becomes number ``step``."""
        return False

    def go_on(self, tensors: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Decide which entries live in a resumed run whose schedules are not those that it had.

        Args:
            tensors: the sparsified parameters by name; ``self.masks`` holds the masks of the checkpoint.

        Returns:
            Boolean masks by name, true where an entry lives.

        Raises:
            SparselitError: the method cannot change its masks so.
        """
        self.masks = {}
        return self.start(tensors)

    def check(self, budgets: Sequence[Budget]) -> None:  # noqa: B027
        """Refuse budgets that the method cannot keep; overridden by methods with limits of their own.

        Args:
            budgets: the plan of the run.

        Raises:
            SparselitError: a budget does not suit the method.
        """

    # -- what others read -------------------------------------------------------------------------------------------

    def validate(self, module: nn.Module, total_steps: int | None = None) -> list[Budget]:
        """Plan the run and refuse what cannot work, before anything is computed.

        Args:
            module: the module to be trained.
            total_steps: ``trainer.max_steps``; -1 where the run has no such length, None where it is not known yet.

        Returns:
            One budget per sparsified tensor.

        Raises:
            SparselitError: a rule matches nothing, a floor does not fit, a weight is computed from what would be
                sparsified, or a schedule lacks the length of the run.
        """
        budgets = plan(module, self.density, self.rules, self.distribution)
        refuse_recomputed(module, budgets)
        self.check(budgets)
        if total_steps is not None:
            if self.needs_length and total_steps < 1:
                raise SparselitError(
                    f"{type(self).__name__} is given in fractions of the run, whose length is not known: set "
                    "trainer.max_steps"
                )
            for budget in budgets:
                budget.density.check(total_steps)
        return budgets

    @property
    def total_steps(self) -> Length:
        """Length of the run, optimizer steps; -1 where it is not known."""
        return self.course.length

    @property
    def problems(self) -> list[str]:
        """Where the run has not kept the configured density, and why it has not come to it; one line each."""
        return [*self.promise.problems, *([self.promise.shortfall] if self.promise.shortfall else ())]

    @property
    def needs_length(self) -> bool:
        """Whether anything is given as a fraction of the run, so that its length must be known."""
        densities = [self.density, *(rule.density for rule in self.rules)]
        return any(density.needs_length for density in densities if isinstance(density, Schedule))

    @property
    def budgets(self) -> list[Budget]:
        """The plan of the run, made when it is first read."""
        if self._budgets is None:
            if self._module is None:
                raise SparselitError(f"{type(self).__name__} has no plan before the trainer has set it up")
            self._budgets = self.validate(self._module)
        return self._budgets

    def targets(self, step: int) -> dict[str, int]:
        """Number of live entries of every sparsified tensor after ``step`` optimizer steps."""
        return {budget.name: self.course.entries(budget, step) for budget in self.budgets}

    def density_at(self, step: int) -> float:
        """Share of live entries over all sparsified tensors after ``step`` optimizer steps, in (0, 1]."""
        return sum(self.targets(step).values()) / self._numel

    @property
    def density_now(self) -> float:
        """Share of live entries over all sparsified tensors at the current step, in (0, 1]."""
        return self.density_at(self.step)

    @property
    def arrival(self) -> Arrival:
        """How far the schedule has come, beside where it ends."""
        return Arrival(sum(self.kept.values()), self._goal, self._numel, self.step, self.total_steps)

    @property
    def foreseen(self) -> Arrival:
        """How far the schedule will have come at the end of a run whose length is known."""
        last = sum(self.targets(self.total_steps).values())
        return Arrival(last, self._goal, self._numel, self.total_steps, self.total_steps)

    @property
    def _goal(self) -> int:
        return sum(budget.entries(budget.density.to) for budget in self.budgets)

    @property
    def _numel(self) -> int:
        return sum(budget.numel for budget in self.budgets)

    def learning_rate(self, weight: Tensor) -> float:
        """The learning rate with which the optimizers have just changed a parameter, 0 where none of them does."""
        for optimizer in self._optimizers:
            for group in optimizer.param_groups:
                if any(weight is other for other in group["params"]):
                    return float(group["lr"])
        return 0.0

    def tensors(self, module: nn.Module) -> dict[str, nn.Parameter]:
        """The sparsified parameters of a module by name."""
        return {budget.name: budget.parameter(module) for budget in self.budgets}

    def live(self, module: nn.Module) -> dict[str, Tensor]:
        """Masks of the living entries by name: the method's own, or the entries that are not zero."""
        return {n: self.masks.get(n, weight.detach() != 0) for n, weight in self.tensors(module).items()}
