"""How a model in training does on prompts that it is not trained on."""

from __future__ import annotations

from typing import NamedTuple

import torch
from lightning.pytorch import LightningModule, Trainer
from torch.nn import functional as F

from sparselit.data.examples import Examples
from sparselit.training.undisturbed import undisturbed


class Score(NamedTuple):
    """What was found.

    Attributes:
        loss: mean cross-entropy of the answer over the whole vocabulary, nats.
        accuracy: share of right answers.
    """

    loss: float
    accuracy: float


def on_selection(trainer: Trainer, module: LightningModule, prompts: int | None = None) -> Score | None:
    """Run a model on the prompts of the selection split; it and the random state stay as they were.

    Every process runs all of them, so that all get the same numbers.

    Args:
        trainer: the trainer with the data.
        module: the model, ``module(tokens, at)`` giving the logits at the answer's position.
        prompts: how many of them are enough, whole batches; None for all.

    Returns:
        The score; None where the data are no examples of a task.
    """
    data = getattr(trainer, "datamodule", None)
    loader = data.val_dataloader() if data is not None else None
    loss, right, seen = 0.0, 0, 0
    with undisturbed(module), torch.no_grad():
        for batch in loader or ():
            if not isinstance(batch, Examples):
                return None
            tokens, at, answer = (field.to(module.device) for field in (batch.tokens, batch.length - 1, batch.answer))
            logits = module(tokens, at)
            loss += float(F.cross_entropy(logits, answer, reduction="sum"))
            right += int((logits.argmax(-1) == answer).sum())
            seen += len(answer)
            if prompts is not None and seen >= prompts:
                break
    return Score(loss / seen, right / seen) if seen else None
