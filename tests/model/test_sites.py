"""Sites: AbsTopK keeps exactly k, edits and recordings leave nothing behind."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sparselit.errors import SparselitError
from sparselit.model.sites import Site, Sites, abs_top_k
from sparselit.model.transformer import Transformer

TOKENS = torch.tensor([[0, 1, 2, 3], [3, 3, 1, 0]])


def tiny(**config: object) -> Transformer:
    torch.manual_seed(0)
    return Transformer(4, 4, **{"n_layers": 1, "d_model": 8, "n_heads": 2, "init_std": 0.5, **config}).eval()


def attached(model: Transformer) -> list[str]:
    return [name for name, site in model.sites.items() if site.attached]


@settings(max_examples=60, deadline=None)
@given(
    rows=st.lists(st.lists(st.sampled_from([-2.0, -1.0, 0.0, 1.0, 2.0, 3.5]), min_size=5, max_size=5), min_size=1),
    k=st.integers(1, 7),
)
def test_abs_top_k_keeps_exactly_the_k_largest_magnitudes_also_among_ties(rows: list[list[float]], k: int) -> None:
    x = torch.tensor(rows)
    y = abs_top_k(x, k)
    for row, kept in zip(x, y, strict=True):
        magnitudes = sorted(row.abs().tolist(), reverse=True)[:k]
        assert sorted(kept.abs().tolist(), reverse=True)[: len(magnitudes)] == magnitudes
        assert int((kept != 0).sum()) == sum(m > 0 for m in magnitudes)
        assert ((kept == 0) | (kept == row)).all()


def test_abs_top_k_of_all_channels_returns_the_tensor_itself() -> None:
    x = torch.randn(3, 4)
    assert abs_top_k(x, 4) is x


def test_gradients_pass_through_the_kept_entries_only() -> None:
    x = torch.tensor([1.0, -3.0, 2.0, 0.5], requires_grad=True)
    abs_top_k(x, 2).sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [0.0, 1.0, 1.0, 0.0]


def test_a_site_edits_before_its_activation_and_after_its_top_k() -> None:
    site = Site("s", 3, torch.relu)
    site.keep = 1
    x = torch.tensor([-1.0, 2.0, 3.0])
    assert site(x).tolist() == [0.0, 0.0, 3.0]
    sites = Sites(s=site)
    with sites.edited(before={"s": lambda x: x - 2.5}, after={"s": lambda x: x + 1}):
        assert site(x).tolist() == [1.0, 1.0, 1.5]
    assert site(x).tolist() == [0.0, 0.0, 3.0]


def test_nested_edits_apply_in_order_and_unwind_in_order() -> None:
    sites = Sites()
    site = sites.add("s", 1)
    one = torch.ones(1)
    with sites.edited(after={"s": lambda x: x + 1}):
        with sites.edited(after={"s": lambda x: x * 10}):
            assert site(one).item() == 20
        assert site(one).item() == 2
    assert not site.attached


@pytest.mark.parametrize("side", ["before", "after"])
def test_edits_are_gone_after_an_exception(side: str) -> None:
    model = tiny()
    expected = model(TOKENS)

    def broken(x: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("in the middle of the forward pass")

    edits = {"layers.0.attn.v": lambda x: x * 2, "layers.0.mlp.act": broken}
    with pytest.raises(RuntimeError, match="in the middle"), model.sites.edited(**{side: edits}):
        model(TOKENS)
    assert attached(model) == []
    assert torch.equal(model(TOKENS), expected)


def test_an_unknown_site_is_named_and_leaves_nothing_attached() -> None:
    model = tiny()
    edits = {"embed": lambda x: x, "layers.7.attn.q": lambda x: x}
    with pytest.raises(SparselitError, match=r"layers\.7\.attn\.q.*layers\.0\.attn\.q"), model.sites.edited(edits):
        pass
    with pytest.raises(SparselitError, match="nowhere"), model.sites.recorded(["embed", "nowhere"]):
        pass
    assert attached(model) == []


def test_recording_is_gone_after_an_exception() -> None:
    model = tiny()
    with pytest.raises(SparselitError, match="longer than"), model.sites.recorded():
        model(torch.zeros(1, 5, dtype=torch.long))
    assert attached(model) == []


def test_every_site_of_the_forward_pass_is_recorded() -> None:
    model = tiny(sink=True, bigram=True, positions="learned_concatenated")
    with model.sites.recorded() as records:
        model(TOKENS)
    assert set(records) == set(model.sites)


def test_recorded_activations_are_those_that_leave_the_site_after_edits() -> None:
    model = tiny()
    with model.sites.edited(after={"embed": torch.zeros_like}), model.sites.recorded(["embed"]) as records:
        model(TOKENS)
    assert list(records) == ["embed"]
    assert not records["embed"].any()


def test_of_several_passes_the_last_is_recorded() -> None:
    model = tiny()
    with model.sites.recorded(["embed"]) as records:
        model(TOKENS)
        model(TOKENS[:1])
    assert torch.equal(records["embed"], model.embed(TOKENS[:1]))


def test_recording_changes_no_logit_beyond_rounding() -> None:
    model = tiny()
    expected = model(TOKENS)
    with model.sites.recorded():
        assert torch.allclose(model(TOKENS), expected, atol=1e-6)
    with model.sites.recorded(set(model.sites) - {"layers.0.attn.pattern"}):
        assert torch.equal(model(TOKENS), expected)


def test_globs_find_sites_and_an_unmatched_glob_is_an_error() -> None:
    model = tiny(n_layers=2)
    assert [site.name for site in model.sites.matching("*.attn.q")] == ["layers.0.attn.q", "layers.1.attn.q"]
    with pytest.raises(SparselitError, match=r"\*\.mpl\.act.*layers\.0\.mlp\.act"):
        model.sites.matching("*.mpl.act")


def test_a_copy_of_a_model_has_sites_of_its_own() -> None:
    model = tiny(activation_density=0.5)
    twin = copy.deepcopy(model)
    assert list(twin.sites) == list(model.sites)
    assert torch.equal(twin(TOKENS), model(TOKENS))
    with twin.sites.edited(after={"logits": torch.zeros_like}):
        assert not twin(TOKENS).any()
        assert model(TOKENS).any()
    with torch.no_grad():
        twin.embed.token.weight.zero_()
    assert model.embed.token.weight.any()
