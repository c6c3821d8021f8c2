"""What is in the way of a run that has ended, and the one or two keys to try: read off its result."""

from __future__ import annotations

from collections.abc import Iterator

from sparselit.report.facts import percent
from sparselit.runs.result import FoundCircuit, Result

#: Share of the best possible accuracy from which on a task counts as learned.
LEARNED = 0.99
#: A density that is higher than the configured one by this factor is worth a word.
DENSER = 1.25
#: So far below the report split, the prompts out of distribution are worth a word.
FAR_BELOW = 0.2
_UNFINISHED = ("running", "interrupted", "failed")


def advice(result: Result, optimum: float = 1.0, trained: float | None = None) -> tuple[str, ...]:
    """One line for each thing that is in the way, the first one first; none where there is nothing to say.

    What follows from an obstacle is not named beside it: a task that is not learned has no circuit either.

    Args:
        result: of a run; one that has not ended by itself, or whose data are no task, gets no advice.
        optimum: best possible accuracy of the task, in (0, 1].
        trained: accuracy on the last training batch, in [0, 1]; None where it is not known.
    """
    right = result.accuracy("report")
    if right is None or result.ended in _UNFINISHED:
        return ()
    if right < LEARNED * optimum:
        return (_not_learned(right, optimum, trained),)
    return tuple(_of_learned(result, right))


def _not_learned(right: float, optimum: float, trained: float | None) -> str:
    best = "" if optimum == 1 else f" (the best possible: {percent(optimum)})"
    if trained is not None and trained >= LEARNED * optimum:
        what = (
            f"learned by heart: {percent(trained)} of the training prompts right, {percent(right)} of the report split"
        )
        return f"{what}{best}; try more different prompts (--data.pool, a larger domain) or --model.weight_decay 0.1"
    keys = "--effort thorough or --model.d_model 64"
    return f"not learned: {percent(right)} of the report split right{best}; try {keys}"


def _of_learned(result: Result, right: float) -> Iterator[str]:
    density, circuits = result.density, result.circuits
    target, reached = (None, None) if density is None else (density.target, density.reached)
    if target is not None and reached is not None and reached > DENSER * target:
        what = f"learned, not as sparse as configured: density {reached:.3g}, not {target:.3g}"
        steps = f"--trainer.max_steps {2 * result.steps.done}"
        yield f"{what}; try {steps} or --sparsity.density.to {1.1 * reached:.2g}"
    if circuits is not None:
        if circuits.reason:
            yield f"no circuit: {circuits.reason}; try --effort thorough or a looser --circuits.criterion"
        for circuit in circuits.latest:
            yield from _of_circuit(circuit)
    shifted = result.accuracy("out_of_distribution")
    if shifted is not None and shifted < right - FAR_BELOW:
        what = f"out of distribution far below: {percent(shifted)} right, {percent(right)} of the report split"
        yield f"{what}; try --model.positions none, or let sample() give prompts of that kind"


def _of_circuit(circuit: FoundCircuit) -> Iterator[str]:
    name = f"the circuit of {circuit.task}" if circuit.task else "the circuit"
    for bound in circuit.criterion:
        if not bound.holds:
            limit = f"≤ {bound.at_most:g}" if bound.at_most is not None else f"≥ {bound.at_least:g}"
            what = f"{name} overfits: {bound.metric} {bound.value:.4g} on the report split, to be {limit}"
            yield f"{what}; try --data.discovery 4096 or --circuits.margin 0.8"
            return
    if not circuit.complete:
        what = f"{name} has no certificate: some of its {circuit.edges:,} edges may not be needed"
        yield f"{what}; try --data.discovery 4096 or --circuits.granularity channel"
