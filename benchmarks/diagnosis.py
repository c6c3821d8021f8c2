"""Faults planted on purpose: does the diagnosis name the weight, does the repair bring the accuracy back?

    python -m benchmarks.diagnosis plants FOLDER CIRCUIT …     # 100 plants over circuits of trained models
    python -m benchmarks.diagnosis clean FOLDER                # 200 models without any plant

A plant sets a certified weight to zero, turns its sign, or adds a shortcut edge, in the full model (``full``) or in the
model that has the circuit's weights alone (``alone``); it counts where at least ``LEAST`` more of the looked-at prompts
go wrong, and four times as many as before. The diagnosis sees the damaged model, the circuit's places and the selection
split, never the old values. The repair may change the suspects' weights, at most five; the report split says how much
of the healthy accuracy is back. Other tasks of the model, where its run has any, say what else changed, held against
the healthy model. Results lie in ``FOLDER`` as JSON lines; a command that was interrupted goes on.
"""

from __future__ import annotations

import copy
import random
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import torch
from sparselit.tasks import FirstToken
from torch.nn import functional as F

from benchmarks.records import Records
from sparselit.circuits import Behaviour, Bound, discover, write_circuit
from sparselit.circuits.circuit import model_hash
from sparselit.circuits.loaded import Loaded, load
from sparselit.circuits.use.repair import applied, between
from sparselit.circuits.use.repair.diagnose import Answers, Diagnosis, diagnose
from sparselit.circuits.use.repair.repair import Errors, errors_of, repaired
from sparselit.circuits.use.repair.smallest import smallest
from sparselit.cli.other_tasks import other_prompts
from sparselit.data.examples import Examples
from sparselit.model.transformer import Transformer
from sparselit.model.wiring import Edges, Place
from sparselit.sparsity.projection import project_
from sparselit.statistics.intervals import wilson

PLANTS, CLEAN, LEAST, BUDGET = 100, 200, 20, 5
KINDS = ("zero", "sign", "shortcut")
LOOKED_AT = 2048


def alone(circuit: Loaded) -> Transformer:
    """The circuit's model without any other weight or bias."""
    other = copy.deepcopy(circuit.model)
    with torch.no_grad():
        for name, mask in circuit.edges.masks(circuit.kept).items():
            other.get_parameter(name).mul_(mask)
    return other


def planted(model: Transformer, circuit: Loaded, kind: str, rng: random.Random) -> tuple[Transformer, Place]:
    """A copy with one fault."""
    other = copy.deepcopy(model)
    if kind == "shortcut":
        edges = Edges.of(model, with_biases=False)
        name = rng.choice(edges.names)
        tensor = other.get_parameter(name)
        row, column = rng.choice((tensor == 0).nonzero().tolist() or [[0, 0]])
        value = rng.choice((-2.0, 2.0)) * float(tensor.abs().max())
    else:
        name, row, column = rng.choice(circuit.circuit.places)
        tensor = other.get_parameter(name)
        value = 0.0 if kind == "zero" else -tensor.detach().view(len(tensor), -1)[row, column].item()
    with torch.no_grad():
        tensor.view(len(tensor), -1)[row, column] = value
    return other, (name, row, column)


@torch.no_grad()
def accuracy(model: Transformer, examples: Examples) -> float:
    """Share of right answers."""
    return float((model(examples.tokens, examples.length - 1).argmax(-1) == examples.answer).double().mean())


@torch.no_grad()
def loss(model: Transformer, examples: Examples) -> float:
    """Cross-entropy of the answers, nats."""
    return float(F.cross_entropy(model(examples.tokens, examples.length - 1), examples.answer))


def rank_of(found: Diagnosis, place: Place) -> tuple[int | None, bool]:
    """The rank of the planted weight, and whether none before it repairs more of the held-out errors."""
    places = [suspect.place for suspect in found.suspects]
    if place not in places:
        return None, False
    rank = places.index(place)
    return rank + 1, all(before.repairs[0] <= found.suspects[rank].repairs[0] for before in found.suspects[:rank])


def measured(
    healthy: Transformer,
    damaged: Transformer,
    circuit: Loaded,
    place: Place,
    errors: Errors,
    others: Sequence[Examples],
    beside: bool,
) -> dict[str, Any]:
    """What diagnosis and repairs make of one plant."""
    report = circuit.behaviour.splits["report"].select(slice(0, LOOKED_AT))
    found = diagnose(damaged, circuit, errors)
    rank, first = rank_of(found, place)
    good = accuracy(healthy, report)
    row: dict[str, Any] = {
        "wrong": errors.wrong, "n": errors.n, "rank": rank, "first": first, "reported": found.fault is not None,
        "named": found.fault is not None and found.fault.place == place, "healthy": good,
        "damaged": accuracy(damaged, report), "others": len(others),
    }  # fmt: skip
    suspects = [suspect.place for suspect in found.suspects]
    ways: dict[str, Callable[[], Transformer]] = {
        "diagnosed": lambda: smallest(damaged, suspects, Answers(damaged, errors.cases), BUDGET)
    }
    if beside:  # as slow as all else together
        ways |= {way: lambda way=way: repaired(damaged, circuit, errors, way, BUDGET) for way in ("random", "finetune")}  # type: ignore[misc]
    for way, make in ways.items():
        other = make()
        edit = between(damaged, other)
        back = model_hash(applied(other, edit.undone).state_dict()) == model_hash(damaged.state_dict())
        row[way] = {
            "weights": len(edit.deltas), "norm": edit.norm, "accuracy": accuracy(other, report), "undone": back,
            "off_task": max((abs(loss(other, part) - loss(healthy, part)) for part in others), default=0.0),
        }  # fmt: skip
    return row


def plants(folder: Path, paths: Sequence[str], number: int = PLANTS) -> list[dict[str, Any]]:
    """Plant faults over the circuits in turn until ``number`` count."""
    records = Records(folder / "plants.jsonl")
    circuits = [load(path) for path in paths]
    others = [[part.select(slice(0, 1000)) for part in other_prompts(circuit, []).values()] for circuit in circuits]
    counted: list[dict[str, Any]] = []
    trial = 0
    while len(counted) < number and trial < 20 * number:
        which, kind, where = (
            trial % len(circuits),
            KINDS[trial // len(circuits) % 3],
            ("alone", "full")[trial // (3 * len(circuits)) % 2],
        )
        key = {"trial": trial, "circuit": circuits[which].circuit.task.name, "kind": kind, "model": where}
        circuit, rng = circuits[which], random.Random(f"plant {trial}")

        def compute(circuit=circuit, kind=kind, where=where, rng=rng, which=which, trial=trial) -> dict[str, Any]:  # type: ignore[no-untyped-def]
            healthy = circuit.model if where == "full" else alone(circuit)
            damaged, place = planted(healthy, circuit, kind, rng)
            pool = circuit.behaviour.splits["selection"].select(slice(0, LOOKED_AT))
            before, wrong = (round((1 - accuracy(x, pool)) * len(pool.answer)) for x in (healthy, damaged))
            if (
                wrong - before < LEAST
                or before > wrong / 4
                or accuracy(damaged, circuit.behaviour.splits["discovery"]) == 0
            ):
                return {"wrong": 0}  # no fault to be seen, or nothing right to compare with
            errors = errors_of(damaged, pool, circuit.behaviour.splits["discovery"])
            return measured(
                healthy, damaged, circuit, place, errors, others[which] if where == "full" else [], trial % 10 == 0
            )

        row = records.once(key, compute)
        trial += 1
        counted += [row] if row["wrong"] >= LEAST else []
        sys.stderr.write(f"\r{len(counted)} plants in {trial} trials")
    return counted


def clean(folder: Path, number: int = CLEAN) -> list[dict[str, Any]]:
    """Diagnose models of other seeds, trained for long or not, in which nothing was planted."""
    records = Records(folder / "clean.jsonl")
    rows = []
    for seed in range(number):
        rows.append(records.once({"seed": seed}, lambda seed=seed: _clean(folder, seed)))  # type: ignore[misc]
        sys.stderr.write(f"\r{len(rows)} clean models")
    return rows


def _clean(folder: Path, seed: int) -> dict[str, Any]:
    task = FirstToken(pool=2048, discovery=128, selection=256, report=512, seed=seed)
    model = _trained(task, seed, steps=(110, 150, 200)[seed % 3])
    behaviour: Behaviour = task.behaviour()
    pool = behaviour.splits["report"]
    right = accuracy(model, pool)
    row = {"accuracy": right, "wrong": round((1 - right) * len(pool.answer)), "reported": False}
    if row["wrong"] < 2:
        return row  # `sparselit diagnose` says that there is nothing to trace
    errors = errors_of(model, pool, behaviour.splits["discovery"])
    bound = Bound("accuracy", at_least=0.8 * right)
    record = discover(model, behaviour, [bound], ablation="zero", margin=0.0, max_seconds=3)
    write_circuit(folder / "clean.json", record, model, behaviour)
    return {**row, "reported": diagnose(model, load(folder / "clean.json"), errors).fault is not None}


def _trained(task: FirstToken, seed: int, steps: int) -> Transformer:
    """A small model whose matrices are projected to 15 % from halfway on."""
    torch.manual_seed(seed)
    model = Transformer(task.vocab_size, task.max_length, n_layers=1, d_model=16, n_heads=2, d_mlp=32)
    solver = torch.optim.AdamW(model.parameters(), lr=1e-2, eps=1e-3)
    batch = task.batches()
    matrices = {name: tensor for name, tensor in model.named_parameters() if tensor.ndim == 2}
    for k in range(steps):
        part = batch(k)
        solver.zero_grad()
        F.cross_entropy(model(part.tokens, part.length - 1), part.answer).backward()
        solver.step()
        if k >= steps // 2:
            for tensor in matrices.values():
                project_(tensor, int(0.15 * tensor.numel()))
    return model.eval()


def share(rows: Sequence[dict[str, Any]], truth: str) -> str:
    """A share of rows with its interval."""
    k, n = sum(bool(row[truth]) for row in rows), len(rows)
    low, high = wilson(k, n)
    return f"{k}/{n} = {100 * k / max(1, n):.1f} % [{100 * low:.1f}, {100 * high:.1f}]"


def table(rows: Sequence[dict[str, Any]]) -> list[str]:
    """The plants in words."""
    lines = []
    for title, part in (
        ("all", rows),
        *((kind, [row for row in rows if row["kind"] == kind]) for kind in KINDS),
        *((where, [row for row in rows if row["model"] == where]) for where in ("full", "alone")),
    ):
        if not part:
            continue
        strict = [{**row, "one": row["rank"] == 1} for row in part]
        lines.append(f"{title}: first {share(strict, 'one')}, first or as good {share(part, 'first')}, "
                     f"reported {share(part, 'reported')}")  # fmt: skip
        for way in ("diagnosed", "random", "finetune"):
            some = [row for row in part if way in row]
            if not some:
                continue
            back = [{"ok": row[way]["accuracy"] >= 0.99 * row["healthy"]} for row in some]
            undone = all(row[way]["undone"] for row in some)
            off = [row[way]["off_task"] for row in some if row["model"] == "full" and row["others"]]
            kept = [{"ok": value <= 0.01} for value in off]
            lines.append(
                f"  {way}: 99 % of the accuracy back {share(back, 'ok')}, weights median"
                f" {median(row[way]['weights'] for row in some)}, off-task within 0.01 nats {share(kept, 'ok')},"
                f" undone bit for bit {undone}"
            )
    return lines


def main(argv: Sequence[str]) -> None:
    """Run one of the two commands and print its table."""
    torch.set_num_threads(1)
    what, folder, *paths = argv
    Path(folder).mkdir(parents=True, exist_ok=True)
    if what == "plants":
        lines = table(plants(Path(folder), paths))
    else:
        rows = clean(Path(folder))
        some = [row for row in rows if row["wrong"] >= LEAST]
        lines = [f"a fault is reported in {share(rows, 'reported')} of the models, {share(some, 'reported')} of those "
                 f"with {LEAST} errors or more"]  # fmt: skip
    sys.stdout.write("\n".join(["", *lines]) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
