"""What a language model of a corpus has to beat: ``python -m benchmarks.language_baselines CORPUS``.

Interpolated Kneser-Ney models of one to five tokens (Kneser and Ney 1995; one discount per order, Chen and Goodman
1998), counted on the training split and frozen, and PPMd (``pip install pyppmd``), which has read the training split
and goes on adapting while it reads the held-out text. All on the report split, in nats per byte; one JSON row each.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from pathlib import Path

import numpy as np

from sparselit.data.corpus.store import Corpus, open_corpus

ORDERS = (1, 2, 3, 4, 5)


class KneserNey:
    """Counts of the n-grams of a text, and the probabilities that follow from them.

    Args:
        tokens: (token,) of the training text.
        order: tokens that are looked at, the predicted one included.
        vocab: size of the vocabulary.
    """

    def __init__(self, tokens: np.ndarray, order: int, vocab: int) -> None:
        self.vocab, self.order = vocab, order
        grams, counts = np.unique(packed(tokens, order, vocab), return_counts=True)
        self.levels = []  # from the longest: n-grams, their counts, discount, contexts, their totals, their kinds
        for n in range(order, 0, -1):
            ones, twos = int((counts == 1).sum()), int((counts == 2).sum())
            discount = ones / (ones + 2 * twos) if ones else 0.0
            contexts, first = np.unique(grams // vocab, return_index=True)
            bounds = np.append(first, len(grams))
            totals = np.add.reduceat(counts, first)
            self.levels.append((grams, counts, discount, contexts, totals, np.diff(bounds)))
            grams, counts = np.unique(grams % vocab ** (n - 1), return_counts=True)  # of different tokens before them

    def nats(self, tokens: np.ndarray) -> np.ndarray:
        """-log probability of each token from the ``order``-th on, given those before it.

        Args:
            tokens: (token,) of a text.
        """
        probability = np.full(len(tokens) - self.order + 1, 1 / self.vocab)
        for level, (grams, counts, discount, contexts, totals, kinds) in reversed(list(enumerate(self.levels))):
            n = self.order - level
            sought = packed(tokens, n, self.vocab)[self.order - n :]
            count = _at(grams, counts, sought)
            total, kind = _at(contexts, totals, sought // self.vocab), _at(contexts, kinds, sought // self.vocab)
            seen = total > 0
            safe = np.maximum(total, 1)
            mixed = np.maximum(count - discount, 0) / safe + discount * kind / safe * probability
            probability = np.where(seen, mixed, probability)
        return -np.log(probability)


def packed(tokens: np.ndarray, n: int, vocab: int) -> np.ndarray:
    """Each run of ``n`` tokens as one number."""
    length = len(tokens) - n + 1
    found = np.zeros(length, dtype=np.int64)
    for i in range(n):
        found = found * vocab + tokens[i : i + length].astype(np.int64)
    return found


def _at(keys: np.ndarray, values: np.ndarray, sought: np.ndarray) -> np.ndarray:
    """The values of the keys that are sought; 0 where there is none."""
    place = np.minimum(np.searchsorted(keys, sought), len(keys) - 1)
    return np.where(keys[place] == sought, values[place], 0)


def ppmd(corpus: Corpus, order: int) -> float:
    """Nats per byte of the report split after the training split, by the growth of the compressed length."""
    import pyppmd

    def length(*texts: bytes) -> int:
        encoder = pyppmd.Ppmd7Encoder(order, 1 << 30)
        return sum(len(encoder.encode(text)) for text in texts) + len(encoder.flush())

    train, report = (corpus.tokenizer.decode(corpus.tokens(split).tolist()).encode() for split in ("train", "report"))
    return (length(train, report) - length(train)) * 8 * math.log(2) / len(report)


def main() -> None:
    """Print a row for each baseline."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("corpus", type=Path, help="folder of a prepared corpus")
    corpus = open_corpus(parser.parse_args().corpus)
    counts = np.array(corpus.tokenizer.byte_counts)
    train, report = np.array(corpus.tokens("train")), np.array(corpus.tokens("report"))
    for order in ORDERS:
        nats = KneserNey(train, order, corpus.tokenizer.size).nats(report)
        length = int(counts[report[order - 1 :]].sum())
        _row(f"{order} tokens, Kneser-Ney", float(nats.sum()) / length, float(nats.mean()), len(nats))
    for order in (6, 16):
        try:
            _row(f"PPMd, order {order}", ppmd(corpus, order), None, None)
        except ImportError:
            sys.stderr.write("PPMd needs: pip install pyppmd\n")
            break


def _row(name: str, per_byte: float, per_token: float | None, n: int | None) -> None:
    row = {
        "model": name,
        "nats_per_byte": round(per_byte, 4),
        "nats_per_token": per_token and round(per_token, 4),
        "tokens": n,
    }
    sys.stdout.write(json.dumps(row) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
