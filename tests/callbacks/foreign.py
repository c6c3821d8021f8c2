"""Modules that are not ours: what a LightningModule may hold, trained by every sparsity method."""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn
from torch.nn.utils.parametrizations import orthogonal, spectral_norm, weight_norm
from torch.utils.data import DataLoader


class Foreign(LightningModule):
    """Some layers on 8 inputs with 4 outputs; a subclass says which."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.build()

    def build(self) -> None:
        self.body = nn.Sequential(nn.Linear(8, 12), nn.Tanh(), nn.Linear(12, 4))

    def forward(self, x: Tensor, tokens: Tensor) -> Tensor:
        return self.body(x)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        generator = torch.Generator().manual_seed(self.trainer.global_step)
        x = torch.randn(16, 8, generator=generator)
        tokens = torch.randint(8, (16,), generator=generator)
        return (self(x, tokens) - x[:, :4].sin()).square().mean()

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam([p for p in self.parameters() if p.requires_grad], lr=0.05)

    def train_dataloader(self) -> DataLoader:
        return DataLoader(range(50))  # type: ignore[arg-type]


class Frozen(Foreign):
    """A matrix that is not trained."""

    def build(self) -> None:
        super().build()
        self.body[0].weight.requires_grad_(False)


class Untrained(Frozen):
    """The frozen matrix is among the optimizer's parameters."""

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=0.05)


class Unused(Foreign):
    """A matrix that no output depends on: it never has a gradient."""

    def build(self) -> None:
        super().build()
        self.spare = nn.Linear(8, 8)


class Late(Foreign):
    """A matrix that is used from the fourth step on."""

    def build(self) -> None:
        super().build()
        self.late = nn.Linear(8, 4)

    def forward(self, x: Tensor, tokens: Tensor) -> Tensor:
        y = self.body(x)
        return y + self.late(x) if self.trainer.global_step > 3 else y


class Embedded(Foreign):
    """An embedding whose gradient is a sparse tensor."""

    def build(self) -> None:
        super().build()
        self.embed = nn.Embedding(8, 4, sparse=True)

    def forward(self, x: Tensor, tokens: Tensor) -> Tensor:
        return self.body(x) + self.embed(tokens)

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.05)


class Tied(Foreign):
    """One matrix under two names."""

    def build(self) -> None:
        self.one, self.two, self.out = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 4)
        self.two.weight = self.one.weight

    def forward(self, x: Tensor, tokens: Tensor) -> Tensor:
        return self.out(self.two(self.one(x).tanh()).tanh())


class WeightNormalised(Foreign):
    """A matrix that is computed from a direction and a length."""

    def build(self) -> None:
        super().build()
        weight_norm(self.body[0])


class OldWeightNorm(Foreign):
    """The same, as torch had it before parametrisations."""

    def build(self) -> None:
        super().build()
        self.body[0] = nn.utils.weight_norm(self.body[0])


class Spectral(Foreign):
    """A matrix that is divided by its largest singular value."""

    def build(self) -> None:
        super().build()
        spectral_norm(self.body[0])


class Orthogonal(Foreign):
    """A matrix that is orthogonal by construction."""

    def build(self) -> None:
        super().build()
        orthogonal(self.body[0])


class Recurrent(Foreign):
    """Gates that torch keeps in flat buffers."""

    def build(self) -> None:
        self.cell, self.out = nn.LSTM(8, 6, batch_first=True), nn.Linear(6, 4)

    def forward(self, x: Tensor, tokens: Tensor) -> Tensor:
        return self.out(self.cell(x[:, None])[0][:, -1])


class Attention(Foreign):
    """Three matrices in one parameter."""

    def build(self) -> None:
        self.attend, self.out = nn.MultiheadAttention(8, 2, batch_first=True), nn.Linear(8, 4)

    def forward(self, x: Tensor, tokens: Tensor) -> Tensor:
        return self.out(self.attend(x[None], x[None], x[None])[0][0])


class Complex(Foreign):
    """A matrix of complex numbers."""

    def build(self) -> None:
        super().build()
        self.phase = nn.Parameter(torch.randn(4, 8, dtype=torch.complex64))

    def forward(self, x: Tensor, tokens: Tensor) -> Tensor:
        return self.body(x) + (x.to(torch.complex64) @ self.phase.T).abs()


class Lazy(Foreign):
    """Shapes that are not known before the first batch."""

    def build(self) -> None:
        self.body = nn.Sequential(nn.LazyLinear(12), nn.Tanh(), nn.LazyLinear(4))


class Convolutional(Foreign):
    """Kernels of four dimensions."""

    def build(self) -> None:
        self.kernel, self.out = nn.Conv2d(1, 3, 3, padding=1), nn.Linear(24, 4)

    def forward(self, x: Tensor, tokens: Tensor) -> Tensor:
        return self.out(self.kernel(x.view(-1, 1, 2, 4)).flatten(1))


class Empty(Foreign):
    """A matrix without an entry."""

    def build(self) -> None:
        super().build()
        self.nothing = nn.Parameter(torch.zeros(0, 4))


class Doubles(Foreign):
    """Two dtypes in one module."""

    def build(self) -> None:
        super().build()
        self.more = nn.Linear(8, 4).double()

    def forward(self, x: Tensor, tokens: Tensor) -> Tensor:
        return self.body(x) + self.more(x.double()).float()


class Strided(Foreign):
    """A matrix that is a transposed view of its memory."""

    def build(self) -> None:
        super().build()
        self.body[0].weight = nn.Parameter(torch.randn(8, 12).T)


FOREIGN: dict[str, type[Foreign]] = {kind.__name__: kind for kind in Foreign.__subclasses__()} | {
    "Untrained": Untrained
}
