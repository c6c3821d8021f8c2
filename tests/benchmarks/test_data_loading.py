"""Making a batch costs next to nothing beside training on it."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from sparselit.tasks import Mixture, Parity, Quotes

SOURCE = Path(__file__).parents[2] / "benchmarks" / "data_loading.py"


def test_data_loading_is_at_most_a_twentieth_of_a_step():
    spec = importlib.util.spec_from_file_location("data_loading", SOURCE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    quotes = Quotes("synthetic", pool=1000, length=24)
    for task in (quotes, Mixture([quotes, Parity(pool=100)], batch_size=128)):
        loading, step = module.times(task, 30)
        assert loading < module.LIMIT * (loading + step)
