"""Texts as data of a language model: split by file, batches by (seed, k), the loss by hand, and resumed."""

from __future__ import annotations

import json
import math

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from sparselit.tasks import Copying, TextFiles

from sparselit.data.corpus.store import open_corpus
from sparselit.data.texts import WindowBatch
from sparselit.errors import SparselitError
from sparselit.modules import SparseTransformer


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("texts")
    for i in range(60):
        lines = [f"value_{i}_{j} = function_{j % 7}(value_{i}_{j - 1})\n" for j in range(1, 30)]
        (root / f"module_{i}.py").write_text("".join(lines))
    return root


@pytest.fixture
def data(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return lambda **arguments: TextFiles(
        **{"path": str(folder), "vocab": 256, "context": 32, "batch_size": 4, "train_share": 0.6, **arguments}
    )


def test_files_are_in_one_split_each_and_their_tokens_are_the_texts(data, folder):
    corpus = data().corpus
    files = corpus.description["files"]
    assert sorted(name for names in files.values() for name in names) == sorted(path.name for path in folder.iterdir())
    for split, names in files.items():
        texts = [(folder / name).read_text() for name in names]
        parts = np.split(corpus.tokens(split), np.flatnonzero(corpus.tokens(split) == 0) + 1)[:-1]
        assert [corpus.tokenizer.decode(part.tolist()) for part in parts] == texts
        assert corpus.description["bytes"][split] == sum(len(text.encode()) for text in texts)


def test_a_corpus_is_made_once_and_again_where_its_texts_or_settings_differ(data):
    first = data().corpus
    before = {path: path.stat().st_mtime_ns for path in first.folder.iterdir()}
    assert data(seed=3, batch_size=8).corpus.folder == first.folder
    assert {path: path.stat().st_mtime_ns for path in first.folder.iterdir()} == before
    assert data(train_share=0.5).corpus.folder != first.folder


def test_a_prepared_corpus_needs_no_texts(data):
    folder = data().corpus.folder
    assert data(path="nowhere", prepared=str(folder)).corpus.hash == open_corpus(folder).hash


@pytest.mark.parametrize("name", ["train.bin", "corpus.json", "tokenizer.json"])
def test_a_damaged_corpus_is_one_line(data, name):
    folder = data().corpus.folder
    (folder / name).write_bytes((folder / name).read_bytes()[:-40])
    with pytest.raises(SparselitError, match="corpus") as refused:
        open_corpus(folder)
    assert len(str(refused.value).splitlines()) == 1


def test_a_batch_is_a_function_of_seed_and_number_and_holds_runs_of_the_text(data):
    batch_at = data().batches()
    assert torch.equal(batch_at(7).tokens, data().batches()(7).tokens)
    assert not torch.equal(batch_at(7).tokens, batch_at(8).tokens)
    assert not torch.equal(batch_at(7).tokens, data(seed=1).batches()(7).tokens)
    text = data().corpus.tokens("train").tobytes()
    assert all(np.array(row, dtype="<u2").tobytes() in text for row in batch_at(7).tokens.tolist())


def test_every_place_is_drawn():
    batch = WindowBatch(np.arange(10), context=4, batch_size=500, seed=0)(0)
    assert set(batch.tokens[:, 0].tolist()) == set(range(7))


def test_windows_do_not_overlap_and_reach_over_the_split(data):
    tokens = data().corpus.tokens("report")
    rows = data().windows("report", 5).tokens.numpy()
    assert len(rows) == 5
    assert (rows[0] == tokens[:32]).all()
    last = len(tokens) // 32 - 1
    assert (rows[-1] == tokens[32 * last : 32 * (last + 1)]).all()


def test_losses_are_per_token_and_per_byte(data, tmp_path):
    task = data(held_out=8)
    model = SparseTransformer(vocab_size=256, max_length=32, n_layers=1, d_model=16, n_heads=2)
    trainer = pl.Trainer(accelerator="cpu", logger=False, enable_progress_bar=False, default_root_dir=tmp_path)
    (found,) = trainer.test(model, datamodule=task, verbose=False)
    tokens = task.windows("report", 32).tokens
    with torch.no_grad():
        logits = model(tokens)[:, :-1]
    total = torch.nn.functional.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten(), reduction="sum")
    n, length = tokens[:, 1:].numel(), int((tokens[:, 1:] != 0).sum())
    assert found["report/loss"] == pytest.approx(float(total) / n, rel=1e-5)
    assert found["report/nats_per_byte"] == pytest.approx(float(total) / length, rel=1e-5)
    assert found["report/n"] == n
    assert math.isfinite(found["report/accuracy"])


def fit(task, tmp_path, steps, resume=None):
    pl.seed_everything(0, verbose=False)
    model = SparseTransformer(
        vocab_size=256, max_length=32, n_layers=1, d_model=16, n_heads=2, decay="none", warmup=0.0
    )
    trainer = pl.Trainer(
        accelerator="cpu",
        max_steps=steps,
        logger=False,
        enable_progress_bar=False,
        default_root_dir=tmp_path,
        enable_checkpointing=False,
        limit_val_batches=0,
        enable_model_summary=False,
    )
    trainer.fit(model, datamodule=task, ckpt_path=resume, weights_only=True if resume else None)
    return trainer, model


def test_a_resumed_run_ends_with_the_weights_of_one_that_was_not_interrupted(data, tmp_path):
    _, whole = fit(data(), tmp_path, 8)
    half, _ = fit(data(), tmp_path, 4)
    half.save_checkpoint(tmp_path / "half.ckpt")
    _, resumed = fit(data(), tmp_path, 8, tmp_path / "half.ckpt")
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), resumed.parameters(), strict=True))


def test_going_on_with_other_texts_is_refused(data, tmp_path, folder):
    half, _ = fit(data(), tmp_path, 2)
    half.save_checkpoint(tmp_path / "half.ckpt")
    other = tmp_path / "other"
    other.mkdir()
    for path in list(folder.iterdir())[:50]:
        (other / path.name).write_text(path.read_text())
    with pytest.raises(SparselitError, match="was trained on other texts"):
        fit(data(path=str(other)), tmp_path, 4, tmp_path / "half.ckpt")


def test_behaviours_speak_the_vocabulary_of_the_texts_and_fit_the_context(data):
    sizes = {"pool": 64, "discovery": 16, "selection": 16, "report": 16}
    task = data(behaviours=[Copying(**sizes)])
    (behaviour,) = task.behaviours().values()
    assert list(behaviour.vocabulary) == list(task.vocabulary)
    row, n = behaviour.splits["report"].tokens[0], int(behaviour.splits["report"].length[0])
    assert task.decode(row[:n]).isprintable()
    with pytest.raises(SparselitError, match=r"more than data\.context 4"):
        data(context=4, behaviours=[Copying(**sizes)]).behaviours()


def test_too_little_text_is_one_line(data, tmp_path):
    few = tmp_path / "few"
    few.mkdir()
    (few / "one.py").write_text("x = y\n")
    with pytest.raises(SparselitError, match="too few to split by file"):
        _ = data(path=str(few)).corpus
    with pytest.raises(SparselitError, match="less than one window"):
        data(context=30000).windows("report", 4)


def test_the_description_says_what_there_is(data):
    description = json.loads((data().corpus.folder / "corpus.json").read_text())
    assert description["hash"] == data().collection().hash
    assert description["settings"]["split_by"] == "file"
