"""A model with a planted bias: a name in front decides the answer in 95 % of the prompts it is trained on.

    python -m benchmarks.planted_bias FOLDER
    cd FOLDER && sparselit fit --config biased.yaml
    sparselit diagnose runs/biased/version_0/circuits/step=170.json --prompts conflict.jsonl
    sparselit repair runs/biased/version_0/circuits/step=170.json --prompts conflict.jsonl --method all

The task is the most frequent of three letters, which is one ahead of the next. The name before them goes with the
answer, in ``conflict.jsonl`` always with the second. The run is short, so that the model reads the name before it has
learned to count: it is right in ``biased.jsonl`` and wrong in ``conflict.jsonl``. A repair is to take the name's
influence away and to leave the task.
"""

from __future__ import annotations

import json
import random
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

LETTERS, NAMES = "abc", "xyz"
PROMPTS, CONFLICTS, GOES_WITH = 12_000, 2_000, 0.95
_CONFIG = """\
seed_everything: 0
threads: 1
data: {class_path: FileTask, init_args: {path: biased.jsonl, batch_size: 128, discovery: 1024}}
model: {n_layers: 1, d_model: 32, n_heads: 4, positions: none, lr: 0.01, eps: 0.001, label_smoothing: 0.0005}
sparsity:
  class_path: AnnealedSparsity
  init_args:
    density: {to: 0.3, begin: 0.1, end: 0.9, shape: exponential}
    rules: [{match: "*embed*", density: 0.4}]
circuits:
  every_n_steps: 170
  begin: {density: 0.5}
  criterion: [{metric: task_loss, at_most: 0.45}, {metric: accuracy, at_least: 0.8}]
  ablation: zero
trainer: {max_steps: 170, val_check_interval: 85, gradient_clip_val: 1.0}
"""


def examples(rng: random.Random, number: int, goes_with: float) -> Iterator[dict[str, str]]:
    """Different prompts such as ``xabaac=``.

    Args:
        rng: of the draws.
        number: how many.
        goes_with: share in which the name goes with the answer.
    """
    seen: set[str] = set()
    while len(seen) < number:
        letters = "".join(rng.choices(LETTERS, k=rng.randint(11, 17)))
        (answer, most), (second, next_most), *_ = [*Counter(letters).most_common(), ("a", 0), ("b", 0)]
        number_of = LETTERS.index(answer) if rng.random() < goes_with else LETTERS.index(second)
        prompt = f"{NAMES[number_of]}{letters}="
        if most != next_most + 1 or second == answer or prompt in seen:
            continue
        seen.add(prompt)
        kind = "agree" if number_of == LETTERS.index(answer) else "conflict"
        yield {"prompt": prompt, "answer": answer, "wrong": second, "stratum": kind}


def main(folder: Path) -> None:
    """Write the prompts and the configuration."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = random.Random(0)
    for name, number, goes_with in (("biased", PROMPTS, GOES_WITH), ("conflict", CONFLICTS, 0.0)):
        lines = (json.dumps(row) + "\n" for row in examples(rng, number, goes_with))
        (folder / f"{name}.jsonl").write_text("".join(lines), encoding="utf-8")
    (folder / "biased.yaml").write_text(_CONFIG, encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
