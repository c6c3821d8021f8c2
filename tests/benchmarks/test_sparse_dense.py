"""The tables of sizes, nulls and ratios, from results that are made up."""

from __future__ import annotations

from typing import Any

from benchmarks.sparse_dense import COMMON, MODELS, NULLS, ROBUST, TASKS, jobs, missing, tables


def row(task: str, model: str, seed: int, edges: int | None, null: str | None = None, complete: bool = True) -> Any:
    key = {"task": task, "model": model, "seed": seed, "protocol": str(ROBUST), "null": null}
    return key | {"edges": edges, "complete": complete}


def test_a_ratio_is_a_geometric_mean_over_seeds_and_then_over_tasks() -> None:
    first, second, third = TASKS
    rows = [row(first, "sparse", 0, 10), row(first, "dense", 0, 1000), row(first, "sparse", 1, 10)]
    rows += [row(first, "dense", 1, 10), row(second, "sparse", 0, 2), row(second, "dense", 0, 20, complete=False)]
    text = tables(rows)
    assert f"| {first} | {ROBUST} | 10, 10 | 1,000, 10 | 10.0 |" in text
    assert f"| {second} | {ROBUST} | 2 | ≤ 20 | ≤ 10.0 |" in text
    assert f"| {ROBUST} | 10.0 | ≤ 10.0 | – | – |" in text
    rows += [row(third, "sparse", 0, 1), row(third, "dense", 0, 80)]
    assert f"| {ROBUST} | 10.0 | ≤ 10.0 | 80.0 | ≤ 20.0 |" in tables(rows)


def test_a_null_that_was_not_found_and_one_out_of_time_are_told_apart() -> None:
    first = next(iter(TASKS))
    failed = {**row(first, "sparse", 0, None, NULLS[0]), "reached": {"task_loss": 0.7, "kl": 0.654}}
    rows = [failed, row(first, "dense", 0, 5000, NULLS[0], complete=False)]
    assert f"| {first} | {ROBUST} | {NULLS[0]} | none (kl 0.65) | ≤ 5,000 |" in tables(rows)


def test_no_search_is_asked_for_twice_and_every_pair_of_models_is_there() -> None:
    keys = [tuple(job.key.items()) for job in jobs(3)]
    assert len(keys) == len(set(keys))
    for task in TASKS:
        for protocol in COMMON:
            for seed in range(3):
                for model in MODELS:
                    key = {"task": task, "model": model, "seed": seed, "protocol": str(protocol), "null": None}
                    assert tuple(key.items()) in keys


def test_a_search_that_ran_out_of_time_is_done_again_only_with_more_of_it() -> None:
    job, *others = jobs(3)
    rest = [other.key | {"edges": 1, "complete": True, "cpu_seconds": 1.0} for other in others]
    stopped = job.key | {"edges": 9, "complete": False, "cpu_seconds": 101.0}
    assert missing(rest, 3, 100.0) == [job]
    assert missing([*rest, stopped], 3, 100.0) == []
    assert missing([*rest, stopped], 3, 200.0) == [job]
    assert missing([*rest, stopped, stopped | {"complete": True}], 3, 200.0) == []
    assert missing([*rest, job.key | {"edges": None, "cpu_seconds": 1.0}], 3, 200.0) == []
