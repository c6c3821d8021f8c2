"""The trained models that come with the library: what their cards say is so, and every command takes their names."""

from __future__ import annotations

import shutil

import pytest
import torch
from sparselit.tasks.python20 import PYTHON20

import sparselit
from sparselit.data.corpus.byte_pairs import tokenizer_of
from sparselit.errors import SparselitError
from sparselit.interop import shipped
from sparselit.runs.checkpoint_file import load_checkpoint
from sparselit.runs.shipped import CARD, SETTINGS, TOKENIZER, WEIGHTS, card, shipped_model, shipped_models

NAMES = sorted(shipped_models())


@pytest.fixture(scope="module", params=NAMES)
def name(request):
    pytest.importorskip("tokenizers")
    return request.param


@pytest.fixture(scope="module")
def model(name):
    return sparselit.load_model(name)


def test_it_is_small_and_has_all_its_parts(name):
    parts = {part: shipped_model(name) / part for part in (WEIGHTS, TOKENIZER, CARD, SETTINGS)}
    assert all(path.is_file() for path in parts.values())
    assert parts[WEIGHTS].stat().st_size < 3e6
    assert {"what", "loss", "licences", "command", "corpus_hash", "sha256"} <= card(name).keys()


def test_its_card_counts_its_weights(name, model):
    nonzero = sum(int(parameter.count_nonzero()) for parameter in model.parameters())
    total = sum(parameter.numel() for parameter in model.parameters())
    assert card(name)["parameters"].startswith(f"{total:,}, of which {nonzero:,} are not zero")


SLOW = [pytest.param(task, marks=pytest.mark.slow) for task in ("indent_for", "var_if")]


@pytest.mark.parametrize("task", ["single_double_quote", *SLOW])
@torch.no_grad()
def test_its_card_says_how_well_it_does_a_task(name, model, task):
    found = PYTHON20[task](pool=1024, discovery=256, selection=512, report=1000)
    found.tokenizer = tokenizer_of((shipped_model(name) / TOKENIZER).read_text())
    examples = found.split("report")
    logits = model(examples.tokens, examples.length - 1)
    ahead = logits.gather(1, examples.answer[:, None]) - logits.gather(1, examples.wrong[:, None])
    row = card(name)["tasks"][task]
    assert len(ahead) == row["n"]
    assert float((ahead > 0).float().mean()) == pytest.approx(row["two"], abs=0.003)
    assert float((logits.argmax(-1) == examples.answer).float().mean()) == pytest.approx(row["all"], abs=0.003)


def test_changed_weights_are_refused(name, monkeypatch, tmp_path):
    copy = shutil.copytree(shipped_model(name), tmp_path / name)
    content = bytearray((copy / WEIGHTS).read_bytes())
    content[-1] ^= 1
    (copy / WEIGHTS).write_bytes(content)
    monkeypatch.setattr(shipped, "shipped_model", lambda _: copy)
    with pytest.raises(SparselitError, match="not those that its card states"):
        sparselit.load_model(name)


def test_it_is_unpacked_once_into_a_run(name, model, tmp_path):
    run = shipped.unpack(name, tmp_path)
    (path,) = (run / "checkpoints").iterdir()
    before = path.stat().st_mtime_ns
    assert shipped.unpack(name, tmp_path) == run
    assert path.stat().st_mtime_ns == before
    state = load_checkpoint(path)["state_dict"]
    assert all(torch.equal(state[f"transformer.{key}"], tensor) for key, tensor in model.state_dict().items())
    again = sparselit.load_model(run)
    assert all(torch.equal(a, b) for a, b in zip(again.state_dict().values(), state.values(), strict=True))
