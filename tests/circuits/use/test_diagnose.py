"""Diagnoses of planted faults, and of errors that no weight is responsible for."""

from __future__ import annotations

import copy

import pytest
import torch

from sparselit.circuits import load
from sparselit.circuits.loaded import Loaded
from sparselit.circuits.use.repair.diagnose import diagnose
from sparselit.circuits.use.repair.objective import joined
from sparselit.circuits.use.repair.repair import errors_of
from sparselit.model.wiring import Place
from sparselit.report.diagnosis import diagnosis_lines
from tests.cli.test_show_verify import DOUBLE, NAME, SINGLE, with_circuit


@pytest.fixture(scope="module")
def circuit(tmp_path_factory: pytest.TempPathFactory) -> Loaded:
    return load(with_circuit(tmp_path_factory.mktemp("diagnosed")) / NAME)


@pytest.mark.parametrize(
    ("place", "value", "kind"),
    [
        (("layers.0.attn.o.weight", 3, 5), 0.0, "restore"),
        (("layers.0.attn.v.weight", 0, 0), -2.0, "turn"),
        (("unembed.weight", SINGLE, 2), 3.0, "turn"),
        (("unembed.weight", DOUBLE, 2), -6.0, "ablate"),
    ],
)
def test_the_planted_weight_comes_first_and_is_reported(circuit: Loaded, place: Place, value: float, kind: str) -> None:
    model = copy.deepcopy(circuit.model)
    with torch.no_grad():
        model.get_parameter(place[0])[place[1], place[2]] = value
    splits = circuit.behaviour.splits
    found = diagnose(
        model, circuit, errors_of(model, joined([splits["discovery"], splits["selection"]]), splits["discovery"])
    )
    least = found.suspects[0].loss
    (planted,) = [suspect for suspect in found.suspects if suspect.place == place]
    assert planted.loss <= least + 1e-2  # the next weight on the same path may do as well
    assert planted.kind == kind
    assert planted.repairs[0] == 1
    assert found.fault is not None
    assert found.unexplained[0] == 0
    assert sum(group.share for group in found.groups) == pytest.approx(1, abs=1e-5)
    text = "\n".join(diagnosis_lines(circuit.circuit, found))
    assert "none found" not in text
    assert max(map(len, text.splitlines())) <= 80


def test_errors_that_no_weight_makes_are_traced_to_none(circuit: Loaded) -> None:
    """Every tenth prompt is labelled wrongly: nothing in the model is at fault."""
    splits = circuit.behaviour.splits
    pool = joined([splits["discovery"], splits["selection"], splits["report"]])
    swap = torch.arange(len(pool.answer)) % 10 == 0
    pool = pool._replace(answer=torch.where(swap, pool.wrong, pool.answer))
    found = diagnose(circuit.model, circuit, errors_of(circuit.model, pool, splits["report"]))
    assert found.wrong == int(swap.sum())
    assert found.fault is None
    assert found.circuit_errs[0] == 1
    assert "none found" in "\n".join(diagnosis_lines(circuit.circuit, found))
