"""The LightningModule: targets, loss, gradient normalisation, weight decay, learning rate, metrics per stratum."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from sparselit.callbacks import AnnealedSparsity
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader

from sparselit.data.examples import Examples
from sparselit.errors import SparselitError
from sparselit.modules import SparseTransformer
from sparselit.modules.sparse_transformer import next_tokens
from sparselit.sparsity import Schedule
from tests.callbacks.methods import QUIET

VOCABULARY, LENGTH = 5, 4


def module(**arguments: Any) -> SparseTransformer:
    torch.manual_seed(0)
    size = {"vocab_size": VOCABULARY, "max_length": LENGTH, "n_layers": 1, "d_model": 8, "n_heads": 2, "d_mlp": 8}
    return SparseTransformer(**size | arguments)


def examples(n: int = 24, seed: int = 0, strata: int = 1) -> Examples:
    g = torch.Generator().manual_seed(seed)
    tokens = torch.randint(VOCABULARY, (n, LENGTH), generator=g)
    length = torch.randint(1, LENGTH + 1, (n,), generator=g)
    tokens[torch.arange(LENGTH) >= length[:, None]] = 0
    answer = torch.randint(VOCABULARY, (n,), generator=g)
    stratum = torch.randint(strata, (n,), generator=g)
    return Examples(tokens, length, answer, (answer + 1) % VOCABULARY, tokens, stratum)


class Data(LightningDataModule):
    """The same examples for everything, in batches of 8, of which the last is smaller."""

    def __init__(self, split: Examples, strata: tuple[str, ...] = ("all",)) -> None:
        super().__init__()
        self.split, self.strata = split, strata

    def loader(self) -> DataLoader:
        return DataLoader([self.split.select(slice(i, i + 8)) for i in range(0, len(self.split.answer), 8)], None)

    train_dataloader = val_dataloader = loader

    def test_dataloader(self) -> list[DataLoader]:
        return [self.loader(), self.loader()]


@pytest.fixture
def trainer(tmp_path: Path) -> Any:
    def make(*callbacks: Callback, **arguments: Any) -> Trainer:
        quiet = QUIET | {
            "default_root_dir": tmp_path,
            "max_steps": 4,
            "num_sanity_val_steps": 0,
            "log_every_n_steps": 1,
        }
        return Trainer(**quiet | {"callbacks": list(callbacks)} | arguments)

    return make


# -- targets and loss --------------------------------------------------------------------------------------------------


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000))
def test_targets_are_the_following_tokens_then_the_answer_then_nothing(seed: int) -> None:
    batch = examples(n=6, seed=seed)
    for i, row in enumerate(next_tokens(batch).tolist()):
        n = int(batch.length[i])
        prompt = batch.tokens[i, :n].tolist()
        assert row == [*prompt[1:], int(batch.answer[i]), *[-100] * (LENGTH - n)]


def by_hand(model: SparseTransformer, batch: Examples, every: bool) -> Tensor:
    """Cross-entropy, one target at a time."""
    losses = []
    for tokens, length, answer in zip(batch.tokens, batch.length.tolist(), batch.answer.tolist(), strict=True):
        logits = model.transformer(tokens[None, :length])[0].log_softmax(-1)
        targets = [*tokens[1:length].tolist(), answer]
        losses += [-logits[t, target] for t, target in enumerate(targets) if every or t == length - 1]
    return torch.stack(losses).mean()


@pytest.mark.parametrize("loss_on", ["answer", "all"])
def test_the_training_loss_is_the_mean_over_the_answer_or_over_every_next_token(loss_on: str) -> None:
    model, batch, logged = module(loss_on=loss_on, init_std=0.5), examples(), {}
    model.log = lambda name, value, **_: logged.update({name: float(value.detach())})  # type: ignore[method-assign]
    loss = model.training_step(batch, 0)
    assert torch.allclose(loss, by_hand(model, batch, loss_on == "all"), atol=1e-6)
    answers = [int(model(t[None, :n])[0, -1].argmax()) for t, n in zip(batch.tokens, batch.length, strict=True)]
    share = sum(a == int(b) for a, b in zip(answers, batch.answer, strict=True)) / len(answers)
    assert logged == {"train/loss": pytest.approx(float(loss.detach())), "train/accuracy": pytest.approx(share)}


def test_padding_has_no_part_in_the_loss_on_all_tokens() -> None:
    model, batch = module(loss_on="all", init_std=0.5), examples()
    model.log = lambda *_, **__: None  # type: ignore[method-assign]
    noise = torch.randint(VOCABULARY, batch.tokens.shape)
    padding = torch.arange(LENGTH) >= batch.length[:, None]
    noisy = batch._replace(tokens=torch.where(padding, noise, batch.tokens))
    assert torch.allclose(model.training_step(batch, 0), model.training_step(noisy, 0), atol=1e-6)


def test_label_smoothing_mixes_in_the_uniform_distribution() -> None:
    model, batch = module(label_smoothing=0.2, init_std=0.5), examples()
    model.log = lambda *_, **__: None  # type: ignore[method-assign]
    log = model(batch.tokens, batch.length - 1).log_softmax(-1)
    expected = -(0.8 * log.gather(1, batch.answer[:, None])[:, 0] + 0.2 * log.mean(-1)).mean()
    assert torch.allclose(model.training_step(batch, 0), expected, atol=1e-6)


# -- gradient normalisation --------------------------------------------------------------------------------------------


class Gradients(Callback):
    """Root mean square of the gradient that the optimizer used."""

    def __init__(self) -> None:
        self.rms: list[float] = []

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        for optimizer in trainer.optimizers:
            # The gradients are computed inside the step, and still there after it.
            optimizer.register_step_post_hook(lambda o, *_: self.rms.append(root_mean_square(o)))


def root_mean_square(optimizer: torch.optim.Optimizer) -> float:
    flat = torch.cat([p.grad.flatten() for g in optimizer.param_groups for p in g["params"] if p.grad is not None])
    return float(flat.square().mean().sqrt())


@pytest.mark.parametrize(("target", "accumulate"), [(1.0, 1), (1.0, 2), (0.3, 1)])
def test_gradient_rms_gives_exactly_that_root_mean_square(trainer: Any, target: float, accumulate: int) -> None:
    seen = Gradients()
    run = trainer(seen, max_steps=3, accumulate_grad_batches=accumulate, limit_val_batches=0)
    run.fit(module(gradient_rms=target), datamodule=Data(examples(80)))
    assert seen.rms == pytest.approx([target] * 3, rel=1e-5)


def test_clipping_comes_after_the_normalisation(trainer: Any) -> None:
    seen, model = Gradients(), module(gradient_rms=1.0)
    n = sum(p.numel() for p in model.parameters())
    trainer(seen, max_steps=2, gradient_clip_val=0.5, limit_val_batches=0).fit(model, datamodule=Data(examples(80)))
    assert seen.rms == pytest.approx([0.5 / math.sqrt(n)] * 2, rel=1e-4)


class Scaled(SparseTransformer):
    """Notes the gradient of the living entries as the optimizer gets it."""

    def configure_gradient_clipping(self, *arguments: Any, **named: Any) -> None:
        super().configure_gradient_clipping(*arguments, **named)
        live = self.trainer.callbacks[0].live(self)
        parts = [p.grad[live[n]] if n in live else p.grad.flatten() for n, p in self.named_parameters()]
        self.found = [*getattr(self, "found", []), torch.cat(parts)]


@pytest.mark.parametrize(("rms", "clip"), [(2.0, None), (None, 0.01), (2.0, 0.01)])
def test_over_live_entries_the_dead_ones_do_not_count(trainer: Any, rms: float | None, clip: float | None) -> None:
    model = module(gradient_over="live", gradient_rms=rms)
    model.__class__ = Scaled
    trainer(AnnealedSparsity(0.1), max_steps=3, gradient_clip_val=clip).fit(model, datamodule=Data(examples(80)))
    measured = [float(g.norm() if clip else g.square().mean().sqrt()) for g in model.found]
    assert measured == pytest.approx([clip or 2.0] * 3, rel=1e-3)


def test_without_gradient_rms_the_gradient_is_left_alone() -> None:
    model = module()
    model.clip_gradients = lambda *_: None  # type: ignore[method-assign]
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    F.cross_entropy(model(examples().tokens, examples().length - 1), examples().answer).backward()
    before = root_mean_square(optimizer)
    model.configure_gradient_clipping(optimizer)
    assert root_mean_square(optimizer) == before


# -- optimizer and learning rate ---------------------------------------------------------------------------------------


def with_trainer(model: SparseTransformer, max_steps: int, *callbacks: Callback) -> SparseTransformer:
    model._trainer = SimpleNamespace(  # type: ignore[assignment]
        max_steps=max_steps, max_epochs=None, num_training_batches=math.inf, callbacks=list(callbacks)
    )
    return model


def test_matrices_are_decayed_and_gains_biases_sinks_and_the_bigram_table_are_not() -> None:
    model = with_trainer(module(weight_decay=0.1, sink=True, bigram=True), 100)
    decayed, kept = model.configure_optimizers()["optimizer"].param_groups  # type: ignore[index]
    names = {id(p): name for name, p in model.transformer.named_parameters()}
    assert (decayed["weight_decay"], kept["weight_decay"]) == (0.1, 0.0)
    assert sorted(names[id(p)] for p in decayed["params"]) == sorted(
        ["embed.token.weight", "embed.position.weight", "unembed.weight"]
        + [f"layers.0.attn.{matrix}.weight" for matrix in "qkvo"]
        + [f"layers.0.mlp.{matrix}.weight" for matrix in ("up", "down")]
    )
    assert {names[id(p)] for p in kept["params"]} == set(names.values()) - {names[id(p)] for p in decayed["params"]}
    assert "bigram.weight" in {names[id(p)] for p in kept["params"]}


def test_the_optimizer_gets_the_papers_numbers() -> None:
    model = with_trainer(module(lr=0.01, betas=(0.8, 0.9), eps=0.1, warmup=0.0), 10)
    (optimizer,) = [model.configure_optimizers()["optimizer"]]  # type: ignore[index]
    assert isinstance(optimizer, torch.optim.AdamW)
    for group in optimizer.param_groups:
        assert (group["initial_lr"], group["betas"], group["eps"]) == (0.01, (0.8, 0.9), 0.1)


def rates(model: SparseTransformer, steps: int) -> list[float]:
    return [model._rate(step) for step in range(steps)]


def test_the_rate_rises_to_its_peak_within_the_warm_up_and_falls_to_its_final_share() -> None:
    got = rates(with_trainer(module(warmup=0.1, final_lr=0.2), 100), 101)
    assert got[:11] == pytest.approx([(i + 1) / 11 for i in range(11)])
    assert got[10:] == pytest.approx([1 - 0.8 * i / 90 for i in range(91)])


def test_a_warm_up_of_more_than_one_counts_steps() -> None:
    assert rates(with_trainer(module(warmup=10), 100), 50) == rates(with_trainer(module(warmup=0.1), 100), 50)


@pytest.mark.parametrize(
    ("decay", "half"), [("linear", 0.1 + 0.9 / 2), ("cosine", 0.1 + 0.9 / 2), ("none", 1.0)], ids=str
)
def test_half_way_the_decay_has_the_shape_that_was_asked_for(decay: str, half: float) -> None:
    got = rates(with_trainer(module(warmup=0.0, decay=decay), 100), 101)
    assert got[50] == pytest.approx(half)
    assert got[0] == pytest.approx(1.0)
    assert got[100] == pytest.approx(1.0 if decay == "none" else 0.1)
    quarter = {"linear": 0.75, "cosine": (1 + math.cos(math.pi / 4)) / 2, "none": 1.0}[decay]
    assert got[25] == pytest.approx(0.1 + 0.9 * quarter if decay != "none" else 1.0)


class Rates(Callback):
    """Before each step: the rate it will use, and the share of the matrices' weights that are not zero."""

    def __init__(self) -> None:
        self.rate: list[float] = []
        self.density: list[float] = []

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Any) -> None:
        self.rate.append(optimizer.param_groups[0]["lr"])
        matrices = [p for p in pl_module.parameters() if p.ndim >= 2]
        self.density.append(sum(int(p.count_nonzero()) for p in matrices) / sum(p.numel() for p in matrices))


def test_sharkfin_divides_the_rate_by_the_root_of_the_density_that_the_weights_have(trainer: Any) -> None:
    seen, sparsity = Rates(), AnnealedSparsity(Schedule(to=0.1, begin=0.0, end=0.75))
    model = module(lr=0.01, warmup=0.2, sharkfin=True)
    trainer(seen, sparsity, max_steps=8, limit_val_batches=0).fit(model, datamodule=Data(examples(80)))
    plain = rates(with_trainer(module(warmup=0.2), 8), 8)
    assert len(set(seen.density)) > 5
    assert seen.density[-1] == pytest.approx(0.1, abs=0.01)
    expected = [0.01 * rate / math.sqrt(density) for rate, density in zip(plain, seen.density, strict=True)]
    assert seen.rate == pytest.approx(expected, rel=1e-6)


def test_a_schedule_without_the_length_of_the_run_is_refused() -> None:
    with pytest.raises(SparselitError, match=r"set trainer\.max_steps"):
        with_trainer(module(), -1)._rate(0)
    assert with_trainer(module(decay="none", warmup=5), -1)._rate(99) == 1.0


# -- metrics -----------------------------------------------------------------------------------------------------------


def counted(model: SparseTransformer, split: Examples, strata: tuple[str, ...]) -> dict[str, tuple[int, int]]:
    """(right, all) per stratum, one prompt at a time."""
    counts = {name: [0, 0] for name in ("all", *strata)}
    for tokens, length, answer, stratum in zip(
        split.tokens, split.length, split.answer.tolist(), split.stratum.tolist(), strict=True
    ):
        right = int(model.transformer(tokens[None, : int(length)])[0, -1].argmax()) == answer
        for name in {"all", strata[stratum]}:
            counts[name][0] += right
            counts[name][1] += 1
    return {name: (right, n) for name, (right, n) in counts.items()}


@pytest.mark.parametrize("strata", [("all",), ("plain", "hard"), ("all", "hard"), ("a", "b", "c")], ids=str)
def test_metrics_per_stratum_equal_a_hand_count(trainer: Any, strata: tuple[str, ...]) -> None:
    split = examples(n=30, strata=len(strata))
    model = module(init_std=0.5)
    run = trainer()
    run.validate(model, datamodule=Data(split, strata), verbose=False)
    got = {name: float(value) for name, value in run.callback_metrics.items()}
    expected = {"val/loss": float(by_hand(model, split, every=False).detach())}
    for name, (right, n) in counted(model, split, strata).items():
        suffix = "" if name == "all" else f"/{name}"
        expected |= {f"val/accuracy{suffix}": right / n, f"val/n{suffix}": n}
    assert got == pytest.approx(expected, abs=1e-6)


def test_the_second_test_loader_is_out_of_distribution(trainer: Any) -> None:
    run = trainer()
    (report, shifted) = run.test(module(), datamodule=Data(examples()), verbose=False)
    assert set(report) == {"report/loss", "report/accuracy", "report/n"}
    assert set(shifted) == {"out_of_distribution/loss", "out_of_distribution/accuracy", "out_of_distribution/n"}


def test_a_prediction_is_the_most_probable_token_and_its_probability() -> None:
    model, batch = module(init_std=0.5), examples()
    token, probability = model.predict_step(batch, 0)
    shares = model(batch.tokens, batch.length - 1).softmax(-1)
    assert torch.equal(token, shares.argmax(-1))
    assert torch.equal(probability, shares.amax(-1))


# -- refused values ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("lr", -1e-3),
        ("lr", math.nan),
        ("eps", -1.0),
        ("weight_decay", -0.1),
        ("warmup", -0.5),
        ("final_lr", 1.5),
        ("gradient_rms", -1.0),
        ("label_smoothing", 1.0),
        ("betas", (0.9, 1.0)),
        ("betas", (-0.1, 0.9)),
        ("decay", "exponential"),
        ("loss_on", "prompt"),
        ("gradient_over", "some"),
        ("norm", "rmsnorm"),
        ("d_head", 0),
    ],
)
def test_a_bad_value_is_refused_by_key_and_value(argument: str, value: object) -> None:
    with pytest.raises(SparselitError) as error:
        module(**{argument: value})
    assert f"model.{argument} must" in str(error.value)
    assert str(value) in str(error.value)
