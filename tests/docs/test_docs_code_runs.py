"""The Python of the pages that no other test follows is run, and the YAML of the tour is that of the configuration."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from sparselit import Transformer
from sparselit.circuits import Bound, discover, write_circuit
from sparselit.interop import save_openai
from tests.circuits.models import randomised, some_behaviour

ROOT = Path(__file__).parents[2]
RUN = Path("runs/quotes_synthetic/version_0")


def blocks(page: str, language: str) -> list[str]:
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    found = re.findall(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return [content for kind, content in found if kind == language]


@pytest.fixture
def names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the blocks take for granted: a run with a circuit and a checkpoint, tokens, a folder in OpenAI's format."""
    monkeypatch.chdir(tmp_path)
    model = randomised(seed=4, density=0.5)
    behaviour = some_behaviour(model)
    circuit = discover(model, behaviour, [Bound("task_loss", at_most=1.5)], ablation="zero")
    write_circuit(RUN / "circuits" / "step=2000.json", circuit, model, behaviour)
    (RUN / "checkpoints").mkdir()
    torch.save({"state_dict": model.state_dict()}, RUN / "checkpoints" / "step=2000.ckpt")
    return {"tokens": behaviour.splits["report"].tokens}


@pytest.mark.parametrize("page", ["tour.md", "reference/python/index.md"])
def test_a_circuit_is_run_from_its_file(page: str, names: dict[str, Any]) -> None:
    (code,) = blocks(page, "python")
    exec(code, names)
    assert names["logits"].shape[:2] == names["tokens"].shape
    assert "verdict" not in names or names["verdict"]["minimal"]


def test_the_exports_of_the_page_can_be_read_back(names: dict[str, Any]) -> None:
    openai, sparse = blocks("how_to/export.md", "python")
    release = Transformer(5, 6, n_layers=1, d_model=6, n_heads=2, d_mlp=5, norm_eps=1.1920928955078125e-07)
    save_openai(release, Path("FOLDER"))
    exec(openai, names)
    exec(sparse, names)
    state = torch.load(RUN / "checkpoints" / "step=2000.ckpt", weights_only=True)["state_dict"]
    for read, written in ((names["model"].state_dict(), release.state_dict()), (names["state"], state)):
        assert read.keys() == written.keys()
        assert all(torch.equal(read[name], tensor) for name, tensor in written.items())


def test_the_callback_of_the_page_is_made() -> None:
    names: dict[str, Any] = {}
    (code,) = blocks("how_to/choose_a_sparsity_method.md", "python")
    exec(code, names)
    assert names["sparsity"] in names["trainer"].callbacks


def leaves(tree: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    if isinstance(tree, dict):
        for key, value in tree.items():
            yield from leaves(value, (*path, key))
    else:
        yield path, tree


def test_the_configuration_in_the_tour_is_the_shipped_one() -> None:
    (shown,) = blocks("tour.md", "yaml")
    shipped = dict(leaves(yaml.safe_load((ROOT / "configs" / "quotes_synthetic.yaml").read_text(encoding="utf-8"))))
    found = dict(leaves(yaml.safe_load(shown)))
    assert len(found) > 10
    for path, value in found.items():
        whole = shipped.get(path, shipped.get((path[0], "init_args", *path[1:])))
        assert value == whole, path


def test_the_outputs_of_the_tour_fit_a_terminal() -> None:
    outputs = blocks("tour.md", "")
    assert len(outputs) > 5
    assert max(len(line) for output in outputs for line in output.splitlines()) <= 80
