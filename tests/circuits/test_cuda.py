"""On a GPU: a search runs there from end to end, and what it states is true on the CPU as well."""

from __future__ import annotations

import pytest
import torch

from sparselit.circuits import Bound, discover
from sparselit.circuits.run.ablation import Kind
from sparselit.circuits.search.problem import Problem
from sparselit.data.behaviour import Behaviour
from sparselit.training.undisturbed import on_device
from tests.circuits.models import randomised, some_behaviour
from tests.ground_truth.cases import copy_last

CRITERION = [Bound("accuracy", at_least=0.75)]
needs_a_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


@needs_a_gpu
@pytest.mark.parametrize("ablation", ["zero", "mean", "resample"])
def test_a_search_runs_on_the_gpu_and_its_certificate_holds_on_the_cpu(ablation: Kind) -> None:
    model = randomised()
    behaviour: Behaviour = some_behaviour(model)
    there = discover(model.cuda(), on_device(behaviour, torch.device("cuda")), CRITERION, ablation)
    assert there.certificate.complete
    assert there.made_on.device != "cpu"
    model = model.cpu()
    problem = Problem.of(model, behaviour.splits["discovery"], CRITERION, ablation)
    kept = torch.isin(torch.arange(len(problem.edges)), problem.edges.numbers(there.places))
    assert problem.works(kept)


@needs_a_gpu
@pytest.mark.parametrize("ablation", ["zero", "mean"])
def test_a_proven_circuit_is_found_on_the_gpu(ablation: Kind) -> None:
    case = copy_last()
    device = torch.device("cuda")
    domain = type(case.domain)(*(field.to(device) for field in case.domain))
    sizes = []
    for model, examples in ((case.model, case.domain), (copy_last().model.cuda(), domain)):
        behaviour = Behaviour(
            dict.fromkeys(("discovery", "selection", "report"), examples), list("abcdefgh"), ("all",), {}
        )
        sizes.append(discover(model, behaviour, case.criterion, ablation, margin=0.0).size)
    assert sizes[0] == sizes[1]
