"""Other ways to repair: the closed form of the read-out, fine-tuning, and a rank-one edit as ROME makes it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sparselit.circuits.use.repair.objective import MARGIN, Entries, Objective, joined, lead, with_tensors
from sparselit.data.examples import Examples
from sparselit.model.sites import Edit
from sparselit.model.transformer import Transformer
from sparselit.model.wiring import Place

_SWEEPS, _STEPS, _ROME_STEPS = 300, 200, 60
#: Learning rates of Adam on some entries, and on all parameters.
_RATES = {False: 2e-2, True: 3e-3}


def read_out(model: Transformer, candidates: Sequence[Place], objective: Objective) -> Transformer:
    """The change of least norm of unembedding weights that gives every error its margin and keeps what is right.

    Logits are linear in them, so that this is a quadratic program; it is solved in its dual, one multiplier after the
    other (Hildreth 1957). Where no change does it all, the result does as much as the sweeps reach.

    Args:
        model: as it is.
        candidates: entries that may change; only those of the unembedding are.
        objective: what to reach.
    """
    places = [place for place in candidates if place[0] in ("unembed.weight", "unembed.bias")]
    if not places:
        return model
    cases = objective.cases
    both = joined([cases.wrong, cases.right])
    with torch.no_grad(), model.sites.recorded(["unembed.in"]) as record:
        logits = model(both.tokens, both.length - 1)
    read = record["unembed.in"][:, 0]
    rival = logits.scatter(1, both.answer[:, None], -torch.inf).argmax(1)
    ahead = lead(logits, both.answer)
    n = len(cases.wrong.answer)
    needed = torch.where(
        torch.arange(len(ahead)) < n, MARGIN - ahead, torch.minimum(ahead, ahead.new_tensor(MARGIN)) - ahead
    )
    rows = torch.stack(
        [
            (read[:, column] if name.endswith("weight") else torch.ones(len(read)))
            * ((both.answer == token).float() - (rival == token).float())
            for name, token, column in places
        ],
        1,
    )
    change = _least_norm(rows.double().numpy(), needed.double().numpy())
    entries = Entries(model, places)
    return entries.model(model, entries.values + torch.from_numpy(change).float())


def _least_norm(rows: NDArray[np.float64], needed: NDArray[np.float64]) -> NDArray[np.float64]:
    """The shortest ``x`` with ``rows @ x >= needed``."""
    square = (rows**2).sum(1)
    x, multiplier = np.zeros(rows.shape[1]), np.zeros(len(rows))
    for _ in range(_SWEEPS):
        for i in np.nonzero((square > 1e-12) & ((rows @ x < needed) | (multiplier > 0)))[0]:
            step = max(-multiplier[i], (needed[i] - rows[i] @ x) / square[i])
            multiplier[i] += step
            x += step * rows[i]
    return x


def fine_tuned(model: Transformer, objective: Objective, places: Sequence[Place] | None = None) -> Transformer:
    """Adam on all parameters, or on some entries only; of all steps the one with the least loss.

    Args:
        model: as it is.
        objective: what to reach.
        places: entries that may change; None for every parameter.
    """
    entries = None if places is None else Entries(model, places)
    start = objective.base if entries is None else {"": entries.values}
    leaves = {name: tensor.detach().clone().requires_grad_() for name, tensor in start.items()}
    solver = torch.optim.Adam(leaves.values(), lr=_RATES[places is None])
    least, best = float("inf"), leaves
    for _ in range(_STEPS):
        loss = objective.loss(leaves if entries is None else entries.tensors(leaves[""]))
        if loss.item() < least:
            least, best = loss.item(), {name: leaf.detach().clone() for name, leaf in leaves.items()}
        solver.zero_grad()
        loss.backward()
        solver.step()
    return with_tensors(model, best) if entries is None else entries.model(model, best[""])


def rank_one(model: Transformer, objective: Objective, keys_of: Examples) -> Transformer:
    """One rank-one edit of the last MLP's ``down`` for each answer among the errors (Meng et al. 2022, ROME, eq. 2).

    The key is the mean of the neurons at the answer position over the errors with that answer, the value is what the
    MLP writes plus the vector that makes them right, and keys of other prompts stay as far as their second moment says.

    Args:
        model: as it is.
        objective: what to reach.
        keys_of: prompts whose keys are to stay.
    """
    if not len(model.layers):
        return model
    layer = len(model.layers) - 1
    act, out = f"layers.{layer}.mlp.act", f"layers.{layer}.mlp.out"
    down = f"layers.{layer}.mlp.down.weight"
    other = model
    kept = _keys(model, keys_of, act)
    moment = kept.T @ kept / len(kept)
    moment = moment + 1e-3 * moment.diagonal().mean() * torch.eye(len(moment), dtype=moment.dtype)
    wrong = objective.cases.wrong
    for answer in wrong.answer.unique().tolist():
        part = wrong.select(wrong.answer == answer)
        key = _keys(other, part, act).mean(0)
        direction = torch.linalg.solve(moment, key)
        value = _value(other, part, out)
        change = torch.outer(value.double(), direction) / (key @ direction).clamp(min=1e-12)
        other = with_tensors(other, {down: other.get_parameter(down).detach() + change.float()})
    return other


@torch.no_grad()
def _keys(model: Transformer, examples: Examples, site: str) -> Tensor:
    with model.sites.recorded([site]) as record:
        model(examples.tokens, examples.length - 1)
    return record[site][:, -1].double()  # the last layer computes the answer position alone


def _value(model: Transformer, part: Examples, site: str) -> Tensor:
    """The vector that has to be added at a site for some prompts to be answered rightly."""
    added = torch.zeros(model.d_model, requires_grad=True)
    solver = torch.optim.Adam([added], lr=0.3)
    edit: Edit = lambda x: x + added  # noqa: E731
    for _ in range(_ROME_STEPS):
        with model.sites.edited(after={site: edit}):
            ahead = lead(model(part.tokens, part.length - 1), part.answer)
        if bool((ahead > MARGIN).all()):
            break
        solver.zero_grad()
        (torch.nn.functional.softplus(MARGIN - ahead).mean() + 1e-3 * added.square().sum()).backward()
        solver.step()
    return added.detach()
