"""Two small modules that know nothing of sparsity, and a quiet trainer."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from tests.callbacks.methods import QUIET


def bright_halves() -> TensorDataset:
    """64 noise images of 8x8 whose class is the brighter half."""
    images = torch.randn(64, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    return TensorDataset(images, (images[:, 0, :4].sum((1, 2)) > images[:, 0, 4:].sum((1, 2))).long())


class Classifier(LightningModule):
    """Any network trained with Adam."""

    def __init__(self, network: nn.Module, lr: float = 0.01) -> None:
        super().__init__()
        self.network = network
        self.lr = lr

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return F.cross_entropy(self.network(batch[0]), batch[1])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=self.lr)

    def train_dataloader(self) -> DataLoader:
        return DataLoader(bright_halves(), batch_size=8)


def mlp(lr: float = 0.01) -> Classifier:
    torch.manual_seed(0)
    return Classifier(nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 2)), lr)


def cnn() -> Classifier:
    torch.manual_seed(0)
    body = nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 2)
    return Classifier(nn.Sequential(*body))


@pytest.fixture(params=[mlp, cnn], ids=["mlp", "cnn"])
def module(request: pytest.FixtureRequest) -> Classifier:
    return request.param()


@pytest.fixture
def make_mlp() -> Callable[..., Classifier]:
    return mlp


@pytest.fixture
def make_trainer(tmp_path: Path) -> Callable[..., Trainer]:
    def make(*callbacks: Any, **kwargs: Any) -> Trainer:
        quiet = QUIET | {"log_every_n_steps": 1}
        return Trainer(**(quiet | {"default_root_dir": tmp_path, "callbacks": list(callbacks)} | kwargs))

    return make
