"""Discovery while a model trains: when it searches, what it logs and writes, and that the run does not notice it."""

from __future__ import annotations

import csv
import itertools
import json
import math
import random
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback, Checkpoint, EarlyStopping, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from sparselit.callbacks import AnnealedSparsity, CircuitDiscovery, StaticSparsity
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor

from sparselit.circuits import Behaviour, Bound, Circuit, NoCircuitError, read_circuit, verify
from sparselit.circuits.circuit import Size
from sparselit.circuits.claims import Complement, HeldOut, Orders, extended
from sparselit.circuits.search import GroupTesting, Progress
from sparselit.data.examples import Examples
from sparselit.data.task import Example, Task
from sparselit.errors import SparselitError
from sparselit.model.transformer import Transformer
from sparselit.modules import SparseTransformer
from sparselit.runs.checkpoint_file import load_checkpoint
from sparselit.runs.folder import checkpoints_in
from sparselit.sparsity import Schedule
from sparselit.training.discovery import Begin, Discovery
from sparselit.training.run_checkpoint import RandomState, RunCheckpoint
from tests.circuits.records import some_circuit, some_evidence, some_nulls, some_score

NAMES = {
    f"circuit/{name}"
    for name in ("found", "edges", "nodes", "loss", "accuracy", "necessity", "unexplained", "null_edges", "seconds")
}


class Copying(Task):
    """The answer is the last letter: learned in a few steps."""

    vocabulary, max_length = tuple("abc"), 4

    def examples(self) -> Iterator[Example]:
        for letters in itertools.product("abc", repeat=4):
            yield Example("".join(letters), letters[-1], "abc"["abc".index(letters[-1]) - 1])


class Noisy(SparseTransformer):
    """Draws random numbers in every step, from all three generators, as dropout would."""

    def training_step(self, batch: Examples, batch_idx: int) -> Tensor:
        loss = super().training_step(batch, batch_idx)
        return loss * (0.5 + torch.rand(()) + float(np.random.rand()) + random.random())  # noqa: NPY002


class WithDropout(SparseTransformer):
    """Draws from torch's generator, whose state the checkpoint holds."""

    def training_step(self, batch: Examples, batch_idx: int) -> Tensor:
        return super().training_step(batch, batch_idx) * (0.5 + torch.rand(()))


class Scripted(Discovery):
    """Gives circuits of the sizes it is told, None for no circuit, without searching."""

    def __init__(self, sizes: list[int | None], every_n_steps: int = 2, begin: Begin | None = None) -> None:
        super().__init__(every_n_steps, begin)
        self.sizes = iter(sizes)
        self.calls = 0

    def find(self, model: Transformer, behaviour: Behaviour, progress: Progress, previous: Any = None) -> Circuit:
        self.calls += 1
        torch.rand(3), np.random.rand(), random.random()  # noqa: NPY002
        assert not model.training
        progress("scripted", 5)
        size = next(self.sizes)
        if size is None:
            raise NoCircuitError("the script says so")
        score = some_score(task_loss=0.125, accuracy=0.5, n=9)
        evidence = some_evidence(
            held_out=extended(HeldOut, score, split="report", strata={}),
            complement=extended(Complement, some_score(task_loss=2.0), split="report"),
            nulls=some_nulls(random_orders=Orders(edges_needed=(77,), median=77, n=9)),
            unexplained=0.25,
        )
        return some_circuit(size=Size(edges=size, nodes=2 * size, free=0), biases=(), evidence=evidence)


def real(**settings: Any) -> CircuitDiscovery:
    criterion = settings.pop("criterion", [Bound("task_loss", at_most=0.9)])
    return CircuitDiscovery(criterion=criterion, **{"ablation": "zero", **settings})


class Recorder(Callback):
    """Keeps what monitors see after each batch."""

    def __init__(self) -> None:
        self.seen: list[tuple[int, dict[str, float]]] = []
        self.nonzeros: list[int] = []

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        metrics = {k: float(v) for k, v in trainer.callback_metrics.items() if k.startswith("circuit/")}
        self.seen.append((trainer.global_step, metrics))
        matrices = [p for n, p in pl_module.named_parameters() if p.ndim > 1]
        self.nonzeros.append(sum(int((p != 0).sum()) for p in matrices))


def train(folder: Path, *callbacks: Callback, steps: int = 8, resume: Path | None = None, **settings: Any) -> Trainer:
    """Train a tiny model; gives the trainer, whose ``lightning_module`` it is."""
    module_class = settings.pop("module", SparseTransformer)
    torch.manual_seed(0), np.random.seed(0), random.seed(0)  # noqa: NPY002
    task = Copying(batch_size=16, discovery=16, selection=8, report=12)
    module = module_class(
        vocab_size=3, max_length=4, n_layers=1, d_model=8, n_heads=2, d_mlp=4, norm="none", bias=False, lr=0.03
    )
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "accelerator": "cpu"}
    quiet |= {"enable_model_summary": False, "log_every_n_steps": 3, "num_sanity_val_steps": 0}
    if any(isinstance(callback, Checkpoint) for callback in callbacks):
        quiet["enable_checkpointing"] = True
    quiet |= {"check_val_every_n_epoch": None, "val_check_interval": 2}
    trainer = Trainer(**(quiet | settings), max_steps=steps, default_root_dir=folder, callbacks=list(callbacks))
    trainer.fit(module, datamodule=task, ckpt_path=resume)
    return trainer


def weights(trainer: Trainer) -> dict[str, bytes]:
    return {name: t.numpy().tobytes() for name, t in trainer.lightning_module.state_dict().items()}


def sparse() -> StaticSparsity:
    return StaticSparsity(density=0.4)


# -- what it leaves alone --------------------------------------------------------------------------------------------


def test_the_run_does_not_notice_the_search(tmp_path: Path) -> None:
    without = train(tmp_path / "without", sparse(), module=Noisy, steps=40)
    states = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()  # noqa: NPY002
    discovery = real(every_n_steps=10)
    with_it = train(tmp_path / "with", sparse(), discovery, module=Noisy, steps=40)
    assert discovery.searches == 4
    assert list(discovery.latest) == [""]
    assert weights(with_it) == weights(without)
    assert torch.equal(torch.get_rng_state(), states[0])
    assert (np.random.get_state()[1].tolist(), random.getstate()) == states[1:]  # noqa: NPY002
    assert all(parameter.requires_grad for parameter in with_it.lightning_module.parameters())


def test_a_search_sees_the_same_random_numbers_whatever_came_before(tmp_path: Path) -> None:
    class Drawing(Scripted):
        drawn: ClassVar[list[float]] = []

        def find(self, *arguments: Any) -> Circuit:
            self.drawn.append(float(torch.rand(())) + random.random())
            return super().find(*arguments)

    train(tmp_path, Drawing([None, None]), module=Noisy, steps=4)
    assert Drawing.drawn[0] == Drawing.drawn[1]


# -- when ------------------------------------------------------------------------------------------------------------


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "circuits").glob("step=*.json") if "timing" not in path.name)


@pytest.mark.parametrize("accumulate", [1, 3])
def test_one_search_per_due_optimizer_step_and_one_at_the_end(tmp_path: Path, accumulate: int) -> None:
    discovery = Scripted([5, 4, 3, 2], every_n_steps=2)
    train(tmp_path, discovery, steps=7, accumulate_grad_batches=accumulate, num_sanity_val_steps=2)
    assert discovery.calls == 4
    assert files(tmp_path) == ["step=2.json", "step=4.json", "step=6.json", "step=7.json"]
    seconds = [json.loads(path.read_text())["seconds"] for path in (tmp_path / "circuits").glob("*.timing.json")]
    assert len(seconds) == 4
    assert sum(seconds) <= discovery.seconds


@pytest.mark.filterwarnings("ignore:the run ended with density")
def test_no_search_before_the_model_is_sparse_enough_and_the_step_has_come(tmp_path: Path) -> None:
    dense = Scripted([], every_n_steps=1, begin=Begin(density=0.9))
    train(tmp_path / "dense", AnnealedSparsity(Schedule(to=0.5, begin=4, end=5)), dense, steps=3)
    assert dense.calls == 0
    late = Scripted([1, 1], every_n_steps=1, begin=Begin(density=0.45, step=3))
    train(tmp_path / "late", late, sparse(), steps=4)
    assert files(tmp_path / "late") == ["step=3.json", "step=4.json"]


# -- what is logged --------------------------------------------------------------------------------------------------


def test_monitors_never_see_a_missing_or_infinite_value(tmp_path: Path) -> None:
    recorder = Recorder()
    sizes = [None, 6, None]
    discovery = Scripted(sizes)
    # The recorder comes after the search, as ModelCheckpoint does.
    train(tmp_path, sparse(), discovery, recorder, steps=6, log_every_n_steps=100)
    for step, metrics in recorder.seen:
        assert metrics.keys() == NAMES, step
        assert all(map(math.isfinite, metrics.values()))
    by_step = dict(recorder.seen)
    assert [by_step[step]["circuit/found"] for step in range(1, 7)] == [0, 0, 0, 1, 1, 0]
    assert by_step[2]["circuit/edges"] == by_step[6]["circuit/edges"] == recorder.nonzeros[1]
    assert by_step[1]["circuit/loss"] == pytest.approx(math.log(3))
    assert by_step[4] == {
        "circuit/found": 1, "circuit/edges": 6, "circuit/nodes": 12, "circuit/loss": 0.125, "circuit/accuracy": 0.5,
        "circuit/necessity": 2, "circuit/unexplained": 0.25, "circuit/null_edges": 77,
        "circuit/seconds": by_step[4]["circuit/seconds"],
    }  # fmt: skip


def test_model_checkpoint_keeps_the_step_of_the_smallest_circuit(tmp_path: Path) -> None:
    checkpoint = ModelCheckpoint(
        tmp_path / "best", "{step}", monitor="circuit/edges", mode="min", every_n_train_steps=1, save_top_k=1
    )
    # Whatever their order in the list: Lightning runs checkpoints last.
    train(tmp_path, sparse(), checkpoint, Scripted([None, 30, 12, 25]), steps=8)
    assert Path(checkpoint.best_model_path).name == "step=6.ckpt"
    assert checkpoint.best_model_score == 12


def test_early_stopping_acts_on_the_size_of_the_circuit(tmp_path: Path) -> None:
    stop = EarlyStopping(monitor="circuit/edges", mode="min", stopping_threshold=20)
    trainer = train(tmp_path / "small", stop, sparse(), Scripted([None, 30, 12, 25]), steps=8)
    assert trainer.global_step == 6
    patient = EarlyStopping(monitor="circuit/edges", mode="min", patience=2)
    trainer = train(tmp_path / "patient", patient, sparse(), Scripted([30, 12, 13, 14, 9]), steps=10)
    assert trainer.global_step == 8


def test_after_a_resume_the_figures_go_on(tmp_path: Path) -> None:
    first = Scripted([9, 7])
    trainer = train(tmp_path / "first", sparse(), first, steps=4)
    trainer.save_checkpoint(tmp_path / "four.ckpt")
    recorder, second = Recorder(), Scripted([5])
    train(tmp_path / "second", sparse(), second, recorder, steps=6, resume=tmp_path / "four.ckpt")
    assert second.calls == 1
    assert [metrics["circuit/edges"] for _, metrics in recorder.seen] == [7, 5]
    assert recorder.seen[0][1]["circuit/seconds"] == pytest.approx(first.seconds)
    assert second.searches == 3


# -- where it goes ---------------------------------------------------------------------------------------------------


def test_tensorboard_gets_the_figures_the_picture_the_page_and_the_final_size(tmp_path: Path) -> None:
    board = TensorBoardLogger(tmp_path, "", 0, default_hp_metric=False)
    train(tmp_path, sparse(), real(every_n_steps=25), steps=50, logger=board)
    events = EventAccumulator(str(tmp_path / "version_0"), {"images": 0, "scalars": 0}).Reload()
    tags = events.Tags()
    assert set(tags["scalars"]) >= NAMES
    assert [e.step for e in events.Images("circuit")] == [25, 50]
    logged = [e.step for e in events.Scalars("circuit/edges")]
    assert {24, 49} <= set(logged)  # off the cadence of 3 steps, which counts from 0
    plugins = events.summary_metadata
    assert plugins["custom_scalars__config__"].plugin_data.plugin_name == "custom_scalars"
    assert b"sparsity and circuit size" in events.Tensors("custom_scalars__config__")[0].tensor_proto.string_val[0]
    final = json.loads((tmp_path / "version_0/circuits/step=50.json").read_text())["size"]["edges"]
    assert events.Scalars("circuit/edges")[-1].value == final
    settings = events.summary_metadata["_hparams_/session_start_info"].plugin_data.content
    assert b"model/lr" in settings
    assert b"data/seed" in settings
    assert b"circuit/edges" in events.summary_metadata["_hparams_/experiment"].plugin_data.content
    assert "hp_metric" not in tags["scalars"]


def test_a_logger_without_figures_gets_the_numbers(tmp_path: Path) -> None:
    train(tmp_path, sparse(), Scripted([4, 2, 1]), steps=5, logger=CSVLogger(tmp_path, "", 0), log_every_n_steps=4)
    with (tmp_path / "version_0/metrics.csv").open() as file:
        rows = {int(row["step"]): row["circuit/edges"] for row in csv.DictReader(file) if row["circuit/edges"]}
    assert rows[1] == "4.0"
    assert rows[3] == "2.0"
    assert rows[4] == "1.0"
    assert files(tmp_path / "version_0") == ["step=2.json", "step=4.json", "step=5.json"]


def test_the_circuit_on_disk_is_true(tmp_path: Path) -> None:
    discovery = real(every_n_steps=100)
    train(tmp_path, sparse(), discovery, steps=60)
    assert list(discovery.latest) == [""]
    circuit, path = discovery.latest[""]
    assert path == tmp_path / "circuits/step=60.json"
    assert {p.name for p in path.parent.iterdir()} == {
        "step=60.json", "step=60.safetensors", "step=60.timing.json", "prompts",
    }  # fmt: skip
    verdict = verify(path)
    assert verdict["holds"]
    assert verdict["minimal"]
    assert verdict["edges"] == circuit.size.edges > 0


# -- Ctrl-C and refusals ---------------------------------------------------------------------------------------------


class _Pressing(GroupTesting):
    """A search during which the user presses Ctrl-C."""

    def shrink(self, problem: Any, found: Any, progress: Progress) -> None:
        signal.raise_signal(signal.SIGINT)
        super().shrink(problem, found, progress)


@pytest.mark.filterwarnings("ignore:.*KeyboardInterrupt")
def test_ctrl_c_ends_the_search_with_what_it_has_and_then_the_run(tmp_path: Path) -> None:
    discovery = real(every_n_steps=40, search=_Pressing())
    with pytest.raises(SystemExit):  # Lightning's answer to KeyboardInterrupt
        train(tmp_path, sparse(), discovery, steps=80)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert files(tmp_path) == ["step=40.json"]
    assert not read_circuit(tmp_path / "circuits/step=40.json").certificate.complete


def test_a_module_without_a_transformer_and_data_without_a_task_are_refused(tmp_path: Path) -> None:
    class Other(LightningModule):
        pass

    task = Copying()
    with pytest.raises(SparselitError, match="circuits need a module with one Transformer, Other has 0"):
        Scripted([]).validate(Other(), task)
    module = SparseTransformer(vocab_size=3, max_length=4, d_model=8, n_heads=2)
    message = r"circuits need data with behaviours\(\), such as a sparselit\.Task, and NoneType has none"
    with pytest.raises(SparselitError, match=message):
        Scripted([]).validate(module, None)
    assert set(Scripted([]).validate(module, task)[""].splits) >= {"discovery", "selection", "report"}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"every_n_steps": 0}, r"circuits\.every_n_steps must be at least 1, got 0"),
        ({"margin": 1.5}, r"circuits\.margin must lie in \[0, 1\), got 1\.5"),
        ({"max_seconds": 0}, r"circuits\.max_seconds must be above 0, got 0"),
        ({"criterion": []}, r"circuits\.criterion is empty"),
    ],
)
def test_a_value_out_of_range_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(SparselitError, match=message):
        CircuitDiscovery(**settings)
    with pytest.raises(SparselitError, match=r"circuits\.begin\.density must lie in \(0, 1\], got 3"):
        Begin(density=3)
    with pytest.raises(SparselitError, match=r"circuits\.begin\.step must be at least 0, got -1"):
        Begin(step=-1)


# -- what a search cannot cost ---------------------------------------------------------------------------------------


class Failing(Scripted):
    """Ends in an error, in the searches that it is told."""

    errors: ClassVar[dict[int, BaseException]] = {}

    def find(self, model: Transformer, behaviour: Behaviour, progress: Progress, previous: Any = None) -> Circuit:
        circuit = super().find(model, behaviour, progress, previous)
        if self.calls in self.errors:
            raise self.errors[self.calls]
        return circuit


def checkpoints(folder: Path) -> RunCheckpoint:
    return RunCheckpoint(every_n_steps=100, keep=100, dirpath=str(folder))


def test_a_search_that_fails_is_a_note_and_the_training_goes_on(tmp_path: Path) -> None:
    without = train(tmp_path / "without", sparse(), module=Noisy)
    search = Failing([5, 5, 3, 3])
    search.errors = {2: ZeroDivisionError("by zero\nand more")}
    with_it = train(tmp_path / "with", sparse(), search, module=Noisy)
    assert search.problems == ["the search at step 4 failed: ZeroDivisionError: by zero"]
    assert search.calls == 4
    assert weights(with_it) == weights(without)


@pytest.mark.parametrize("step", [4, 8], ids=["on the way", "at the last step"])
def test_a_run_killed_in_a_search_loses_no_step_and_searches_again(step: int, tmp_path: Path) -> None:
    whole = train(tmp_path / "whole", RandomState(), sparse(), Failing([5, 4, 3, 2]), module=WithDropout)
    search = Failing([5, 4, 3, 2])
    search.errors = {step // 2: GeneratorExit()}  # no error that anything handles
    folder = tmp_path / "checkpoints"
    with pytest.raises(GeneratorExit):
        train(tmp_path / "killed", RandomState(), sparse(), search, checkpoints(folder), module=WithDropout)
    assert max(checkpoints_in(folder)) == step
    again = Failing([5, 4, 3, 2][step // 2 - 1 :])
    file = checkpoints_in(folder)[step]
    resumed = train(
        tmp_path / "resumed", RandomState(), sparse(), again, checkpoints(folder), module=WithDropout, resume=file
    )
    assert again.calls == (8 - step) // 2 + 1
    assert again.searches == 4
    assert weights(resumed) == weights(whole)
    assert not list(folder.glob("*-v*"))  # its own checkpoint was written again, also where no step was left
    final = load_checkpoint(checkpoints_in(folder)[8])["callbacks"]
    assert next(state for name, state in final.items() if "Failing" in name)["pending"] is None
