"""The LightningModule that trains a weight-sparse transformer; callbacks decide which weights are zero."""

from __future__ import annotations

import math
from typing import Any, Literal, cast
from urllib.parse import unquote

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.lr_scheduler import LambdaLR
from torchmetrics import MeanMetric, Metric, SumMetric

from sparselit.data.examples import Examples, Sequences
from sparselit.data.splits import TESTED
from sparselit.errors import LARGEST_RATE, SparselitError, check_choice, check_moment, check_range
from sparselit.model.transformer import Transformer
from sparselit.sparsity.gradient import scale_
from sparselit.sparsity.updates import refuse_vanishing_eps
from sparselit.training.sparsifier import Sparsifier
from sparselit.training.steps import run_length


class SparseTransformer(LightningModule):
    """A transformer with a next-token loss, AdamW and a learning-rate schedule that follows the density.

    The optimizer follows Gao et al. 2025 (§2): gradients optionally divided by their root mean square, AdamW with a
    large epsilon, warm-up and decay of the rate, optionally multiplied by ``1 / sqrt(density)`` ("sharkfin").
    For gradient clipping use ``trainer.gradient_clip_val``.

    Args:
        lr: peak learning rate.
        betas: Adam's decay rates of the gradient's first and second moment.
        eps: Adam's epsilon; the paper uses 0.1 with normalised gradients.
        weight_decay: decoupled decay of matrices; biases, gains, sinks and the bigram table are not decayed.
        warmup: linear warm-up, a fraction of the run up to 1 or a number of optimizer steps.
        decay: shape of the rate after the warm-up.
        final_lr: rate at the end of the decay, as a share of ``lr`` in [0, 1].
        sharkfin: multiply the rate by ``1 / sqrt(density)`` of the sparsity callback.
        gradient_rms: divide the gradient by its root mean square over all parameters and multiply by this number;
            null leaves it alone.
        gradient_over: entries over which ``gradient_rms`` and the clipping by norm count: ``all``, or those that are
            ``live`` under the sparsity callback (dense parameters always are).
        label_smoothing: share of probability spread over the vocabulary in the training loss, in [0, 1).
        loss_on: train on the answer only, or on every next token of the prompt as well; running text has no
            answer, so that its loss is over all positions.
        kwargs: arguments of the transformer.

    Raises:
        SparselitError: a value is out of range; the message names it.

    Examples:
        >>> model = SparseTransformer(vocab_size=5, max_length=6, n_layers=1, d_model=8, n_heads=2, lr=0.01)
        >>> model(torch.tensor([[0, 3, 1]])).shape
        torch.Size([1, 3, 5])
        >>> model.hparams["lr"]
        0.01
    """

    def __init__(
        self,
        lr: float = 3e-3,
        betas: tuple[float, float] = (0.9, 0.95),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        warmup: float = 0.01,
        decay: Literal["linear", "cosine", "none"] = "linear",
        final_lr: float = 0.1,
        sharkfin: bool = False,
        gradient_rms: float | None = None,
        gradient_over: Literal["all", "live"] = "all",
        label_smoothing: float = 0.0,
        loss_on: Literal["answer", "all"] = "answer",
        **kwargs: Any,
    ) -> None:
        super().__init__()
        for key, value in (("lr", lr), ("eps", eps), ("weight_decay", weight_decay)):
            check_range(f"model.{key}", value, 0, most=LARGEST_RATE)
        if gradient_rms is not None:
            check_range("model.gradient_rms", gradient_rms, 0, most=LARGEST_RATE)
        check_moment("model.warmup", warmup)
        check_range("model.final_lr", final_lr, 0, 1)
        check_range("model.label_smoothing", label_smoothing, 0, 1, below=True)
        two = isinstance(betas, list | tuple) and len(betas) == 2
        if not two or not all(isinstance(beta, int | float) and 0 <= beta < 1 for beta in betas):
            raise SparselitError(f"model.betas must be two numbers in [0, 1), got {betas}")
        for key, choice, choices in (
            ("decay", decay, ("linear", "cosine", "none")),
            ("loss_on", loss_on, ("answer", "all")),
            ("gradient_over", gradient_over, ("all", "live")),
        ):
            check_choice(f"model.{key}", choice, choices)
        self.save_hyperparameters()
        self.transformer = Transformer(**kwargs)
        self.metrics = nn.ModuleDict()  # by logged name; made when the strata are known
        self._strata: tuple[str, ...] = ()  # of the task
        self._total_steps: int | None = None  # of the run, known when it starts
        self._bytes: Tensor | None  # (vocabulary,), where the data are texts

    def forward(self, tokens: Tensor, at: Tensor | None = None) -> Tensor:
        """Next-token logits; see :meth:`Transformer.forward`."""
        return self.transformer(tokens, at)

    def training_step(self, batch: Examples | Sequences, batch_idx: int) -> Tensor:
        """Cross-entropy of the answer, or of every next token, over the whole vocabulary, nats."""
        at = batch.length - 1
        if isinstance(batch, Examples) and self.hparams["loss_on"] == "answer":
            logits, targets = self(batch.tokens, at), batch.answer
            judged, right = logits, batch.answer
        else:
            logits, targets = self(batch.tokens), next_tokens(batch)
            if isinstance(batch, Examples):
                judged, right = logits[torch.arange(len(at), device=at.device), at], batch.answer
            else:
                judged, right = logits[targets >= 0], targets[targets >= 0]  # (target, vocabulary)
            logits = logits.transpose(1, 2)  # (batch, vocabulary, position)
        loss = F.cross_entropy(logits, targets, label_smoothing=self.hparams["label_smoothing"], ignore_index=-100)
        correct = (judged.detach().argmax(-1) == right).float().mean()
        self.log("train/loss", loss, prog_bar=True)
        self.log("train/accuracy", correct, prog_bar=True)
        return loss

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Log the learning rate of the step."""
        self.log("train/lr", optimizer.param_groups[0]["lr"])

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: int | float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Divide the gradient by its root mean square where ``gradient_rms`` is set, then clip as the trainer says."""
        if gradient_clip_val is not None:
            check_range("trainer.gradient_clip_val", gradient_clip_val, 0)
        parameters = [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        gradients = [cast(Tensor, p.grad) for p in parameters]
        rms, live = self.hparams["gradient_rms"], self._live()
        counted = [None if live is None else live.get(id(p)) for p in parameters]
        if rms is not None:
            scale_(gradients, counted, rms=rms)
        if live is None or not gradient_clip_val or gradient_clip_algorithm == "value":  # 0 is off, as in Lightning
            self.clip_gradients(optimizer, gradient_clip_val, gradient_clip_algorithm)
        else:
            scale_(gradients, counted, clip=gradient_clip_val)

    def _live(self) -> dict[int, Tensor] | None:
        """Masks of the live entries by parameter, None where all entries count."""
        if self.hparams["gradient_over"] == "all":
            return None
        callbacks = [c for c in self.trainer.callbacks if isinstance(c, Sparsifier)]  # type: ignore[attr-defined]
        found = [(c.tensors(self), c.live(self)) for c in callbacks]
        return {id(tensors[name]): masks[name] for tensors, masks in found for name in tensors}

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """AdamW in two groups (matrices decayed, the rest not) and the rate's schedule per optimizer step."""
        if (self.trainer.max_epochs or -1) >= 0:
            self.trainer.fit_loop.setup_data()  # so that the steps of an epoch can be counted
        self._total_steps = run_length(self.trainer, self)
        h = self.hparams
        decayed: list[nn.Parameter] = []
        kept: list[nn.Parameter] = []
        for name, parameter in self.transformer.named_parameters():
            (decayed if parameter.ndim >= 2 and not name.startswith("bigram") else kept).append(parameter)
        groups = [{"params": decayed, "weight_decay": h["weight_decay"]}, {"params": kept, "weight_decay": 0.0}]
        optimizer = torch.optim.AdamW(groups, lr=h["lr"], betas=tuple(h["betas"]), eps=h["eps"])
        refuse_vanishing_eps([optimizer])
        scheduler = LambdaLR(optimizer, self._rate)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step", "name": "lr"}}

    def on_fit_start(self) -> None:
        """Train at the rate that a learning rate finder has just put among the hyper-parameters."""
        for scheduler in [config.scheduler for config in self.trainer.lr_scheduler_configs]:
            ours = isinstance(scheduler, LambdaLR) and self._rate in scheduler.lr_lambdas
            if ours and scheduler.base_lrs != [self.hparams["lr"]] * len(scheduler.base_lrs):
                scheduler.base_lrs = [self.hparams["lr"]] * len(scheduler.base_lrs)
                for group in scheduler.optimizer.param_groups:
                    group["initial_lr"], group["lr"] = self.hparams["lr"], self.hparams["lr"] * self._rate(0)

    def _rate(self, step: int) -> float:
        """Learning rate of optimizer step ``step`` as a share of ``lr``."""
        h, total = self.hparams, self.trainer.max_steps if self._total_steps is None else self._total_steps
        if total < 1 and (h["decay"] != "none" or 0 < h["warmup"] <= 1):
            raise SparselitError("the learning rate's schedule needs the length of the run: set trainer.max_steps")
        warmup = h["warmup"] * total if h["warmup"] <= 1 else h["warmup"]
        rate = min(1.0, (step + 1) / (warmup + 1))
        progress = min(1.0, max(0.0, (step - warmup) / max(1.0, total - warmup))) if total > 0 else 0.0
        shape = {"linear": 1 - progress, "cosine": (1 + math.cos(math.pi * progress)) / 2, "none": 1.0}[h["decay"]]
        rate *= h["final_lr"] + (1 - h["final_lr"]) * shape
        if h["sharkfin"]:
            for callback in self.trainer.callbacks:  # type: ignore[attr-defined]
                if isinstance(callback, Sparsifier):
                    rate /= math.sqrt(callback.density_at(step))
        return rate

    def setup(self, stage: str) -> None:
        """Make the metrics of the evaluation splits, one per stratum of the task."""
        task = getattr(self.trainer, "datamodule", None)
        self._strata = tuple(getattr(task, "strata", ()))
        counts = getattr(task, "byte_counts", None)
        self.register_buffer("_bytes", None if counts is None else torch.tensor(counts), persistent=False)
        for split in ("val", *TESTED):
            self.metrics[f"{split}/loss"] = MeanMetric()
            if counts is not None:
                self.metrics[f"{split}/nats_per_byte"] = MeanMetric()
            for stratum in dict.fromkeys(("all", *self._strata)):
                self.metrics[_without_dots(f"{split}/accuracy/{stratum}")] = MeanMetric()
                every = SumMetric(sync_on_compute=False)  # every process sees the whole split
                self.metrics[_without_dots(f"{split}/n/{stratum}")] = every

    def validation_step(self, batch: Examples | Sequences, batch_idx: int) -> None:
        """Loss and accuracy on the selection split, per stratum."""
        self._evaluate("val", batch)

    def test_step(self, batch: Examples | Sequences, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Loss and accuracy on the report split, and on the out-of-distribution split where the task has one."""
        self._evaluate(TESTED[dataloader_idx], batch)

    def _evaluate(self, split: str, batch: Examples | Sequences) -> None:
        """Log ``<split>/loss``, and ``<split>/accuracy`` and ``<split>/n`` over all answers and per stratum.

        Of sequences every next token is an answer, and they are of no stratum.
        """
        if isinstance(batch, Examples):
            logits, answer, strata = self(batch.tokens, batch.length - 1), batch.answer, batch.stratum
        else:
            targets = next_tokens(batch)
            logits, answer = self(batch.tokens)[targets >= 0], targets[targets >= 0]
            strata = torch.full_like(answer, -1)
        correct = (logits.argmax(-1) == answer).float()
        metrics = {unquote(key): cast(Metric, m) for key, m in self.metrics.items() if key.startswith(f"{split}/")}
        for metric in metrics.values():  # converted with the module: half precision cannot count to 3,000
            if metric.dtype in (torch.float16, torch.bfloat16):
                metric.set_dtype(torch.float32)
        loss = F.cross_entropy(logits.to(torch.promote_types(logits.dtype, torch.float32)), answer, reduction="none")
        metrics[f"{split}/loss"].update(loss)
        if self._bytes is not None:
            length = self._bytes[answer].sum()
            metrics[f"{split}/nats_per_byte"].update(loss.sum() / length, length)
        shares = {"all": torch.ones_like(correct)}  # also where a task calls a stratum "all"
        for index, stratum in enumerate(self._strata):
            shares.setdefault(stratum, (strata == index).float())
        for stratum, weight in shares.items():
            metrics[f"{split}/accuracy/{stratum}"].update(correct, weight)
            metrics[f"{split}/n/{stratum}"].update(weight)
        for key, metric in metrics.items():
            name = key.removesuffix("/all")
            shown = name in ("val/accuracy", "val/nats_per_byte")
            self.log(name, metric, on_step=False, on_epoch=True, add_dataloader_idx=False, prog_bar=shown)

    def predict_step(self, batch: Examples | Sequences, batch_idx: int) -> tuple[Tensor, Tensor]:
        """The most probable next token of each prompt and its probability, each (batch,)."""
        probability, token = self(batch.tokens, batch.length - 1).softmax(-1).max(-1)
        return token, probability


def next_tokens(batch: Examples | Sequences) -> Tensor:
    """Targets (batch, position): the following token, after a prompt's last one its answer, -100 elsewhere."""
    targets = F.pad(batch.tokens[:, 1:], (0, 1), value=-100)
    if isinstance(batch, Sequences):
        return targets.masked_fill(~F.pad(batch.real[:, 1:], (0, 1), value=False), -100)
    targets = targets.masked_fill(~batch.real, -100)
    return targets.scatter(1, (batch.length - 1)[:, None], batch.answer[:, None])


def _without_dots(key: str) -> str:
    """A name that a module may have, from which :func:`unquote` makes the key again."""
    return key.replace("%", "%25").replace(".", "%2E")
