"""Edits as data: applied to a copy, undone to the bit, composed, compared, and refused where they do not belong."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings

from sparselit.circuits.circuit import model_hash
from sparselit.circuits.use.graph import NodeKey
from sparselit.circuits.use.repair import Edit, Provenance, applied, between, composed, read_edit
from sparselit.circuits.use.repair.by_hand import by_hand
from sparselit.circuits.use.repair.edit import difference
from sparselit.errors import SparselitError
from sparselit.model.transformer import Transformer
from tests.circuits.models import randomised, seeds, some_examples


def changed(model: Transformer, seed: int, share: float = 0.05) -> Transformer:
    other, g = copy.deepcopy(model), torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in other.parameters():
            chosen = torch.rand(parameter.shape, generator=g) < share
            parameter[chosen] = torch.randn(parameter.shape, generator=g)[chosen] * 1e-3
    return other


@settings(max_examples=20)
@given(seeds)
def test_an_edit_read_from_its_file_gives_the_other_model_and_back_to_the_bit(seed: int) -> None:
    model = randomised(seed, density=0.4, tied=bool(seed % 2))
    with torch.no_grad():
        model.embed.token.weight[0, 0] = -0.0
    other = changed(model, seed)
    with torch.no_grad():
        other.embed.token.weight[0, 0] = 0.0
    edit = between(model, other, Provenance(maker="test"))
    again = Edit(**{**vars(edit)})
    text = json.loads(json.dumps(edit.as_json()))
    assert ("embed.token.weight", 0, 0) in [delta.place for delta in edit.deltas]
    assert [tuple(row) for row in text["deltas"]] == [tuple(delta) for delta in again.deltas]
    before = model_hash(model.state_dict())
    there = applied(model, edit)
    assert model_hash(there.state_dict()) == model_hash(other.state_dict()) == edit.after
    assert model_hash(applied(there, edit.undone).state_dict()) == before == model_hash(model.state_dict())


def test_edits_compose_in_their_order_and_the_undone_one_takes_both_back(tmp_path: Path) -> None:
    model = randomised(1)
    middle = changed(model, 2)
    end = changed(middle, 3)
    both = composed(model, [between(model, middle, Provenance(maker="a")), between(middle, end, Provenance(maker="b"))])
    assert [one.maker for one in both.provenance] == ["a", "b"]
    assert both.after == model_hash(end.state_dict())
    (tmp_path / "e.json").write_text(json.dumps(both.as_json()))
    assert read_edit(tmp_path / "e.json") == both
    assert model_hash(applied(end, both.undone).state_dict()) == both.before


def test_edits_of_one_model_compose_where_they_touch_other_entries_and_else_are_refused() -> None:
    model = randomised(1)
    one, two = (by_hand(model, {("unembed.weight", 0, i): 5.0}, {}, {}) for i in (0, 1))
    edits = [between(model, other) for other in (one, two)]
    assert len(composed(model, edits).deltas) == 2
    with pytest.raises(SparselitError, match="another edit was there"):
        composed(model, [edits[0], edits[0]])


def test_an_edit_of_another_model_or_with_a_changed_file_is_refused(tmp_path: Path) -> None:
    model = randomised(1)
    edit = between(model, changed(model, 2))
    with pytest.raises(SparselitError, match="another model"):
        applied(randomised(2), edit)
    forged = replace(edit, deltas=(edit.deltas[0]._replace(after=1.5), *edit.deltas[1:]))
    with pytest.raises(SparselitError, match="its file was changed"):
        applied(model, forged)
    outside = replace(edit, deltas=(edit.deltas[0]._replace(row=999),))
    with pytest.raises(SparselitError, match="which the model has not"):
        applied(model, outside)
    twice = replace(edit, deltas=(edit.deltas[0], edit.deltas[0]))
    (tmp_path / "e.json").write_text(json.dumps(twice.as_json()))
    with pytest.raises(SparselitError, match="named twice"):
        read_edit(tmp_path / "e.json")


def test_a_difference_names_what_two_edits_change_alike() -> None:
    model = randomised(1)
    edits = [
        between(model, by_hand(model, {("unembed.weight", 0, i): value for i, value in values.items()}, {}, {}))
        for values in ({0: 5.0, 1: 5.0, 2: 5.0}, {1: 5.0, 2: 6.0, 3: 5.0})
    ]
    found = difference(*edits)
    assert [[column for _, _, column in part] for part in found] == [[0], [1], [2], [3]]


def test_scaling_a_node_by_its_readers_is_scaling_its_activation() -> None:
    model, examples = randomised(3, n_layers=2), some_examples(8)
    for node in (NodeKey("layers.0.mlp.act", 2), NodeKey("layers.1.attn.in", 3), NodeKey("layers.1.attn.v", 4)):
        other = by_hand(model, {}, {}, {node: 0.3})

        def edit(x: torch.Tensor, channel: int = node.channel) -> torch.Tensor:
            x = x.clone()
            x[..., channel] *= 0.3
            return x

        with torch.no_grad(), model.sites.edited(after={node.site: edit}):
            expected = model(examples.tokens)
        with torch.no_grad():
            assert torch.allclose(other(examples.tokens), expected, atol=1e-5)
    with pytest.raises(SparselitError, match="no weight reads"):
        by_hand(model, {}, {}, {NodeKey("layers.0.mlp.out", 0): 0.0})
