"""Complete circuits without any search, for the tests of what reads them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sparselit.circuits.circuit import (
    Circuit,
    KeptBias,
    KeptEdge,
    Measured,
    ModelRecord,
    SearchRecord,
    Size,
    TaskRecord,
)
from sparselit.circuits.claims import (
    Adversary,
    Attended,
    Certificate,
    Complement,
    DarkMatter,
    Drawn,
    Evidence,
    Exchange,
    Faithfulness,
    HeldOut,
    Interchange,
    Necessity,
    Nulls,
    NullScore,
    Opened,
    OpenEdge,
    Orders,
    OtherNorm,
    Relaxation,
    Score,
    SearchedNull,
    SiteScore,
    Unexplained,
    Worst,
    extended,
)
from sparselit.circuits.criterion import Bound
from sparselit.circuits.run.ablation import Ablation
from sparselit.runs.machine import MadeOn

CONFIG = {"vocab_size": 8, "max_length": 6, "n_layers": 2, "d_model": 8, "n_heads": 2, "d_head": None, "d_mlp": 16}


def some_score(**changes: Any) -> Score:
    values = {
        "task_loss": 0.125, "answer_loss": 0.1, "calibrated_loss": 0.1, "accuracy": 0.999, "kl": 0.01, "kl_max": 0.1,
        "accuracy_interval": (0.998, 0.9995), "task_loss_interval": (0.12, 0.13), "answer_loss_interval": (0.1, 0.1),
        "kl_interval": (0.01, 0.01), "task_loss_max": 0.5, "margin_min": 0.25, "n": 10_000,
    }  # fmt: skip
    return Score(**{**values, **changes})


def some_faithfulness(**changes: Any) -> Faithfulness:
    worst = Worst(runs=2, meet_criterion=2, worst={"task_loss": 0.2, "accuracy": 0.9})
    exchange = extended(Exchange, worst, sites={"embed": SiteScore(task_loss=0.2, accuracy=0.9, kl=0.1)})
    values = {
        "split": "report",
        "n": 256,
        "activations": {"embed": Unexplained(unexplained=0.2, rescaled=0.1)},
        "attention": {"layers.0.attn[0]": Attended(total_variation=0.1, total_variation_max=0.2)},
        "interchange": Interchange(into_full=exchange, into_circuit=exchange),
        "random_halves": worst,
        "relaxation": extended(Relaxation, worst, task_loss=(0.2, 0.1), accuracy=(0.9, 1.0)),
        "other_norm": extended(OtherNorm, some_score(n=256), norm="frozen"),
    }
    return Faithfulness(**{**values, **changes})


def some_searched_null(**changes: Any) -> SearchedNull:
    values = {
        "bounds": (Bound("task_loss", at_most=0.1),),
        "edges": 12,
        "complete": True,
        "reached": {"task_loss": 0.09},
        "split": "discovery",
        "n": 40,
        "places": (),
    }
    return SearchedNull(**{**values, **changes})


def some_nulls(**changes: Any) -> Nulls:
    drawn = Drawn(draws=20, meet_criterion=0, task_loss_best=1.0, task_loss_median=2.0, accuracy_best=0.5, n=1024)
    null = extended(NullScore, some_score(task_loss=3.0, accuracy=0.1), meets_criterion=False)
    values = {
        "random_circuits": drawn,
        "magnitude_matched": drawn,
        "random_orders": Orders(edges_needed=(70, 77, 80), median=77, n=256),
        "shuffled_answers": null,
        "untrained_model": null,
    }
    return Nulls(**{**values, **changes})


def some_adversary(**changes: Any) -> Adversary:
    opened = extended(Opened, some_score(), edges=(OpenEdge("embed.token.weight", 1, 2, 0.5),))
    values = {
        "chosen_on": "discovery", "budget": 20, "restarts": 3, "broken_by": None, "greedy": opened, "gradient": opened,
    }  # fmt: skip
    return Adversary(**{**values, **changes})


def some_evidence(**changes: Any) -> Evidence:
    score = some_score()
    values = {
        "full_model": score,
        "sufficiency": {"discovery": score, "selection": score},
        "held_out": extended(HeldOut, score, split="report", strata={"all": score}),
        "out_of_distribution": None,
        "necessity": Necessity(split="report", still_necessary=1, edges=1, n=10_000),
        "complement": extended(Complement, some_score(task_loss=2.0), split="report"),
        "faithfulness": some_faithfulness(),
        "nulls": some_nulls(),
        "unexplained": 0.25,
        "dark_matter": DarkMatter(task_loss=0.1, kl=None, residual={"embed": 0.5}, n=256),
        "flags": (),
        "other_ablations": {"mean": score},
        "adversary": None,
    }
    return Evidence(**{**values, **changes})


def some_circuit(edges: Sequence[Sequence[Any]] = (), **changes: Any) -> Circuit:
    """A circuit of any edges ``[parameter, row, column, weight]`` with made-up evidence."""
    values = {
        "model": ModelRecord(weights="w.safetensors", hash="0" * 64, config=CONFIG),
        "task": TaskRecord(
            class_path="sparselit.tasks.Quotes", init_args={}, vocabulary=tuple("abcdefgh"), strata=("all",)
        ),
        "criterion": (Measured("task_loss", at_most=0.15, value=0.08),),
        "ablation": Ablation(),
        "nodes": {},
        "edges": tuple(KeptEdge(*edge) for edge in edges),
        "biases": (KeptBias("layers.0.attn.q.bias", 6, 0.5),),
        "size": Size(nodes=0, edges=len(edges), free=3),
        "certificate": Certificate(
            split="discovery", n=40, criterion=(Bound("task_loss", at_most=0.1),), granularity="weight",
            complete=True, removals=(), min_margin=0.01,
        ),
        "evidence": some_evidence(),
        "search": SearchRecord(
            class_path="sparselit.circuits.search.auto.Auto", init_args={}, evaluations=1, forwards=1, backwards=0
        ),
    }  # fmt: skip
    values["made_on"] = MadeOn(processor="p", capability="AVX2", device="cpu", torch="2.6.0")
    return Circuit(**{**values, **changes})
