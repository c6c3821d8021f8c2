"""The ``>>>`` examples of the entry points are true."""

from __future__ import annotations

import doctest
from importlib import import_module

import pytest

#: Where public names with an example live, and which of them have one.
EXAMPLES = {
    "sparselit.data.task": ["Task"],
    "sparselit.data.splits": ["Example"],
    "sparselit.data.behaviour": ["Behaviour"],
    "sparselit.data.tokenizer": ["LongestMatch"],
    "sparselit.model.transformer": ["Transformer"],
    "sparselit.modules.sparse_transformer": ["SparseTransformer"],
    "sparselit.sparsity.schedule": ["Schedule"],
    "sparselit.sparsity.projection": ["project_"],
    "sparselit.training.sparsifier": ["Sparsifier"],
    "sparselit.callbacks.annealed_sparsity": ["AnnealedSparsity"],
}


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_examples_of_the_entry_points_run_and_are_true(name):
    module = import_module(name)
    flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    found = {test.name.rpartition(".")[2]: test for test in doctest.DocTestFinder().find(module) if test.examples}
    assert set(EXAMPLES[name]) <= found.keys()
    for test in found.values():
        said: list[str] = []
        result = doctest.DocTestRunner(optionflags=flags, verbose=False).run(test, out=said.append)
        assert result.failed == 0, "".join(said)
