"""Is it true? Every claim of a ``circuit.json`` recomputed from the files alone, by the slowest and simplest path.

Nothing here comes from the search or from a fast path: the full model runs with masked tensors, once per claim.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sparselit.circuits.circuit import Circuit, model_hash
from sparselit.circuits.claims import Removal
from sparselit.circuits.criterion import holds, margin, measure
from sparselit.circuits.evidence.collect import collect
from sparselit.circuits.evidence.compare import false_claims
from sparselit.circuits.evidence.null_targets import applicable, null_bounds, recomputed
from sparselit.circuits.evidence.other_ways import PutBack
from sparselit.circuits.evidence.scores import Told, silent
from sparselit.circuits.files import read_behaviour, read_circuit, read_model
from sparselit.circuits.run.granularity import removal_units
from sparselit.circuits.run.naive import NaiveEngine
from sparselit.circuits.size import nodes_of
from sparselit.circuits.subnetwork import Subnetwork
from sparselit.data.behaviour import Behaviour, PromptFile, prompt_record
from sparselit.errors import SparselitError
from sparselit.model.transformer import Transformer
from sparselit.model.wiring import Edges
from sparselit.runs.json_record import write
from sparselit.runs.machine import MadeOn


def verify(path: str | Path, progress: Callable[[int, int], None] | None = None, told: Told = silent) -> dict[str, Any]:
    """Recompute size, criterion, certificate, necessity and all other evidence of the circuit at ``path``.

    Args:
        path: the ``circuit.json``; weights and prompts lie beside it.
        progress: called as (edges tried, edges) while the certificate is recomputed.
        told: called with what is being recomputed after it.

    Returns:
        ``holds`` (the stated criterion holds on the report split and no claim is false), ``minimal`` (removing any one
        unit breaks the certificate's criterion on the discovery split; true where there is no unit, false where the
        certificate is not ``complete``), ``units``, how many were removed, ``seal`` (``intact``, ``broken`` where the
        record was edited, or ``none`` in a file of an older ``version``), ``same_machine`` (figures are compared at the
        written digits), the sizes and scores, and ``false_claims``: the name of each field whose recomputed value
        differs.

    Raises:
        SparselitError: a file is missing or cannot be read.
    """
    path = Path(path)
    circuit = read_circuit(path)
    model = read_model(path, circuit)
    behaviour = read_behaviour(path, circuit)
    stated, certified, ablation = circuit.criterion, circuit.certificate.criterion, circuit.ablation
    if not stated or not certified:
        raise SparselitError(f"{path}: the criterion, or the certificate's, is empty")
    if len(behaviour.vocabulary) > model.unembed.out_features:
        raise SparselitError(f"{path}: the task has {len(behaviour.vocabulary)} tokens, the model has fewer")
    engine = NaiveEngine.of(model, ablation, behaviour.splits)
    false: list[str] = []
    network = Subnetwork(engine, _kept(model, engine.edges, circuit, false))
    kept, discovery = network.kept, behaviour.splits["discovery"]
    reference = network.whole.logits(discovery)
    certificate = circuit.certificate
    units = removal_units(model, engine.edges, kept, certificate.granularity)
    if not certificate.complete:  # an unfinished one claims nothing of the units that it does not name
        named = {removal.unit for removal in certificate.removals}
        units = {name: unit for name, unit in units.items() if name in named}
    removals = []
    for tried, unit in enumerate(units.values(), 1):
        trial = kept.clone()
        trial[unit] = False
        removals.append(measure(network.keeping(trial).logits(discovery), discovery, reference))
        if progress is not None:
            progress(tried, len(units))
    searched = circuit.evidence.nulls.searched
    if searched is not None:
        bounds = null_bounds(certified, measure(network.logits(discovery), discovery)["task_loss"])
        false += [f"evidence.nulls.searched.{name}" for name in applicable(model, discovery) if name not in searched]
        searched = recomputed(searched, bounds, engine, discovery)
    adversary = circuit.evidence.adversary
    put_back = None if adversary is None else PutBack.of(adversary)
    evidence = collect(network, behaviour, stated, searched, told=told, put_back=put_back)
    size = network.size
    min_margin = min((-margin(certified, values) for values in removals), default=0.0)
    held_out = evidence.held_out
    again = replace(
        circuit,
        model=replace(circuit.model, hash=model_hash(model.state_dict()), config=model.config),
        task=replace(circuit.task, splits=_prompt_files(path, circuit)),
        criterion=tuple(replace(bound, value=held_out.metrics[bound.metric]) for bound in stated),
        nodes=nodes_of(engine.edges, kept),
        size=size,
        certificate=replace(
            certificate,
            n=len(discovery.answer),
            split="discovery",
            removals=tuple(
                Removal(name, {b.metric: values[b.metric] for b in certified})
                for name, values in zip(units, removals, strict=True)
            ),
            min_margin=min_margin,
        ),
        evidence=evidence,
    )
    same_machine = circuit.made_on == MadeOn.here()
    false.extend(false_claims(circuit, again, same_machine))
    if circuit.seal == "broken":
        false.insert(0, "seal")
    sufficient = holds(stated, held_out.metrics)
    if circuit.generalises and not sufficient:
        false.append("criterion")
    if not all(any(tight.implies(bound) for tight in certified) for bound in stated):
        false.append("certificate.criterion")  # a certificate for something easier
    if not holds(certified, measure(network.logits(discovery), discovery, reference)):
        false.append("certificate.criterion")  # a bound that nothing meets makes every edge look necessary
    if _overlap(behaviour):
        false.append("task.splits")
    false = list(dict.fromkeys(false))
    return {
        "holds": sufficient and not false,
        "complete": certificate.complete,
        "seal": circuit.seal,
        "version": circuit.version,
        "same_machine": same_machine,
        "minimal": certificate.complete and not any(holds(certified, values) for values in removals),
        "units": len(units),
        "granularity": certificate.granularity,
        **write(size),
        "task_loss": held_out.task_loss,
        "accuracy": held_out.accuracy,
        "n": held_out.n,
        "min_margin": round(min_margin, 6),
        "necessity_loss": evidence.complement.task_loss,
        "ablation": write(ablation),
        "still_necessary_on_report": evidence.necessity.still_necessary,
        "unexplained": evidence.unexplained,
        "flags": list(evidence.flags or ()),
        "false_claims": false,
    }


def _prompt_files(path: Path, circuit: Circuit) -> dict[str, PromptFile]:
    return {split: prompt_record(path.parent / row.file, path.parent) for split, row in circuit.task.splits.items()}


def _kept(model: Transformer, edges: Edges, circuit: Circuit, false: list[str]) -> Tensor:
    """The circuit's edges that the model has; edges that it has not, or with another weight, are false claims."""
    kept = torch.zeros(len(edges), dtype=torch.bool)
    values = [*(edge.weight for edge in circuit.edges), *(bias.value for bias in circuit.biases)]
    numbers = edges.numbers(circuit.places).tolist()
    for i, (place, weight, found) in enumerate(zip(circuit.places, values, numbers, strict=True)):
        name = f"edges[{i}]" if i < len(circuit.edges) else f"biases[{i - len(circuit.edges)}]"
        if found < 0 or kept[found] or bool(edges.is_bias[found]) != name.startswith("biases"):
            false.append(name)
            continue
        kept[found] = True
        parameter, (_, row, column) = model.get_parameter(place[0]).detach(), place
        if float(parameter[row] if parameter.ndim == 1 else parameter[row, column]) != weight:
            false.append(f"{name}.weight")
    return kept


def _overlap(behaviour: Behaviour) -> bool:
    """Whether any prompt stands in two of the splits."""
    seen: set[tuple[int, ...]] = set()
    for examples in behaviour.splits.values():
        pairs = zip(examples.tokens.tolist(), examples.length.tolist(), strict=True)
        prompts = {tuple(tokens[:length]) for tokens, length in pairs}
        if seen & prompts:
            return True
        seen |= prompts
    return False
