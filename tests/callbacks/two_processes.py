"""Run as a program: every method trains in two processes with gloo, which compare weights and masks after each step."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from sparselit.callbacks import AnnealedSparsity, DynamicSparsity, RiglSparsity, SelfPacedSparsity

from sparselit.sparsity import Rule, Schedule
from sparselit.training.sparsifier import Sparsifier
from tests.callbacks.methods import QUIET, STEPS, members


class LocalRigl(RiglSparsity):
    """Grows on the gradients of its own process, which is wrong."""

    def on_fit_start(self, trainer, pl_module):
        super().on_fit_start(trainer, pl_module)
        self.local = {}  # tensor hooks see the gradient before the processes average theirs
        for name, weight in self.tensors(pl_module).items():
            weight.register_hook(lambda g, name=name: self.local.__setitem__(name, g.detach().clone()))

    def before_step(self, tensors, step):
        super().before_step(tensors, step)
        self._gradients = {name: self.local[name].abs() for name in self._gradients}


class Equal(Callback):
    """Notes the steps after which the processes differ, and those at which a tensor has more than its budget."""

    def __init__(self, sparsifiers: list[Sparsifier]) -> None:
        self.sparsifiers = sparsifiers
        self.differ: list[int] = []
        self.exceed: list[int] = []

    def on_train_start(self, trainer, pl_module):
        trainer.optimizers[0].register_step_post_hook(lambda *_: self.count(trainer, pl_module))

    def count(self, trainer, pl_module):
        for sparsifier in self.sparsifiers:
            for name, k in sparsifier.targets(sparsifier.step).items():
                if int(pl_module.get_parameter(name).count_nonzero()) > k:
                    self.exceed.append(sparsifier.step)

    def on_train_batch_end(self, trainer, pl_module, *args):
        masks = [m.float().flatten() for c in self.sparsifiers for m in c.masks.values()]
        mine = torch.cat([p.detach().flatten() for p in pl_module.parameters()] + masks)
        everyone = pl_module.all_gather(mine)
        if not torch.equal(everyone[0], everyone[1]):
            self.differ.append(trainer.global_step)


class Net(LightningModule):
    """Three layers on data that differ from process to process."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = torch.nn.Linear(8, 12), torch.nn.Linear(12, 4)
        self.third = torch.nn.Linear(4, 4)

    def training_step(self, batch, batch_idx):
        x = torch.randn(16, 8, generator=torch.Generator().manual_seed(100 * self.global_rank + batch_idx))
        return (self.third(self.second(self.first(x).tanh())) - x[:, :4].sin()).square().mean()

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=0.1)

    def train_dataloader(self):
        return torch.utils.data.DataLoader(range(40))


def only(name: str) -> list[Rule]:
    return [Rule(f"{name}.weight"), Rule("*", density=None)]


def exchanging(rigl: type[RiglSparsity]) -> list[Sparsifier]:
    """Three methods, each on a layer of its own."""
    return [
        AnnealedSparsity(Schedule(to=0.1, end=0.5), only("first")),
        rigl(0.3, only("second"), every_n_steps=3),
        DynamicSparsity(0.3, only("third"), every_n_steps=3),
    ]


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    runs: dict[str, Any] = {name: [member.usual()] for name, member in members().items()}
    runs["exchanging"] = exchanging(RiglSparsity)
    runs["on local gradients"] = exchanging(LocalRigl)
    rise: dict[str, Any] = {"loss_below": 0.3, "memory": 0.0, "spike": 1.1, "patience": 2, "shrink": 0.05, "finish": 11}
    runs["self-paced"] = [SelfPacedSparsity(Schedule(to=0.1, end=4), moments="reset", **rise)]
    report, weights = {}, {}
    for name, sparsifiers in runs.items():
        equal, net = Equal(sparsifiers), Net()
        callbacks = [*sparsifiers, equal]
        trainer = Trainer(
            **QUIET, max_steps=STEPS, devices=2, strategy="ddp", callbacks=callbacks, num_sanity_val_steps=0
        )
        trainer.fit(net)
        live = {key: int(p.count_nonzero()) for key, p in net.named_parameters()}
        report[name] = {"steps": trainer.global_step, "differ": equal.differ, "exceed": equal.exceed, "live": live}
        weights[name] = net.state_dict()
    paced = runs["self-paced"][0]
    report["self-paced"] |= {"rollbacks": paced.pace.rollbacks, "locked": paced.locked}
    torch.save(weights, folder / f"rank{trainer.global_rank}.pt")
    (folder / f"rank{trainer.global_rank}.json").write_text(json.dumps(report), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
