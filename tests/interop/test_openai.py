"""Checkpoints of OpenAI's release: their logits, every option, the way back, and what is refused."""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from safetensors.torch import load_file
from torch import Tensor

from sparselit.errors import SparselitError
from sparselit.interop import checkpoint_to_openai, load_openai, openai_to_checkpoint, save_openai
from sparselit.model.transformer import Transformer

from .release import DATA, Release, configs, random_state, write

CASES = sorted(path.name for path in DATA.iterdir())
SMALL: dict[str, Any] = {"block_size": 4, "vocab_size": 5, "n_layer": 2, "n_head": 2, "d_model": 6}
#: The full outputs of the release lie beside the repository on some machines, and anywhere by this variable.
REFERENCE = Path(os.environ.get("SPARSELIT_REFERENCE", Path(__file__).parents[3] / "shared" / "reference")) / "openai"


def stored(name: str, folder: Path) -> tuple[Path, dict[str, Tensor]]:
    """A small model that the release itself made, as a folder of its format, and what the release computes with it."""
    config = json.loads((DATA / name / "beeg_config.json").read_text())
    return write(folder / name, config, load_file(DATA / name / "weights.safetensors")), load_file(
        DATA / name / "expected.safetensors"
    )


def site_of(hook: str, layers: int) -> str:
    """Our name of one of the release's activations."""
    if hook == "final_resid":
        return f"layers.{layers - 1}.mlp.residual"
    number, name = hook.split(".", 1)
    ends = {"y": "z", "act_in": "in", "resid_delta": "out", "post_act": "act"}
    if name == "resid_in":
        return "embed" if number == "0" else f"layers.{int(number) - 1}.mlp.residual"
    if name == "resid_mid":
        return f"layers.{number}.attn.residual"
    block, end = name.split(".")
    return f"layers.{number}.{block}.{ends.get(end, end)}"


@torch.no_grad()
def check_against_the_release(folder: Path, expected: dict[str, Tensor]) -> None:
    model = load_openai(folder)
    assert (model(expected["tokens"]) - expected["logits"]).abs().max() < 1e-5
    with model.sites.recorded() as records:
        model(expected["tokens"])
    hooks = [name.removeprefix("act.") for name in expected if name.startswith("act.")]
    assert len(hooks) == 11 * len(model.layers) + 1
    for hook in hooks:
        difference = (records[site_of(hook, len(model.layers))] - expected[f"act.{hook}"]).abs().max()
        assert difference < 1e-5, hook


@pytest.mark.parametrize("name", CASES)
def test_logits_and_activations_are_the_releases_own(name: str, tmp_path: Path) -> None:
    check_against_the_release(*stored(name, tmp_path))


@pytest.mark.skipif(
    not REFERENCE.is_dir(),
    reason="needs SPARSELIT_REFERENCE, a folder of longer outputs of the release; the stored ones are tested above",
)
@pytest.mark.parametrize("name", CASES)
def test_so_are_those_of_the_longer_outputs_where_they_lie_beside_the_repository(name: str) -> None:
    check_against_the_release(REFERENCE / name, torch.load(REFERENCE / name / "expected.pt", weights_only=True))


@pytest.mark.parametrize("name", CASES)
def test_the_slow_reference_of_this_test_agrees_with_the_release(name: str) -> None:
    config = json.loads((DATA / name / "beeg_config.json").read_text())
    expected = load_file(DATA / name / "expected.safetensors")
    slow = Release(config, load_file(DATA / name / "weights.safetensors"))(expected["tokens"][0].tolist())
    assert np.abs(slow - expected["logits"][0].numpy()).max() < 1e-5


@settings(max_examples=60, deadline=None)
@given(config=configs)
def test_every_combination_of_options_gives_the_logits_of_the_slow_reference(config: dict[str, Any]) -> None:
    state = random_state(config)
    tokens = torch.randint(config["vocab_size"], (2, config["block_size"]), generator=torch.Generator().manual_seed(1))
    with TemporaryDirectory() as folder, torch.no_grad():
        logits = load_openai(write(Path(folder), config, state)).double()(tokens).numpy()
    reference = Release(config, state)
    assert np.abs(logits - np.stack([reference(row) for row in tokens.tolist()])).max() < 1e-9


@settings(max_examples=40, deadline=None)
@given(config=configs)
def test_to_a_checkpoint_and_back_every_tensor_and_option_is_the_same(config: dict[str, Any]) -> None:
    state = random_state(config)
    with TemporaryDirectory() as temporary:
        folder, back, file = (Path(temporary) / name for name in ("there", "back", "model.ckpt"))
        openai_to_checkpoint(write(folder, config, state), file)
        checkpoint_to_openai(file, back)
        again = torch.load(back / "final_model.pt", weights_only=True)
        options = json.loads((back / "beeg_config.json").read_text())
        assert torch.equal(load_openai(back)(torch.tensor([[0, 1]])), load_openai(folder)(torch.tensor([[0, 1]])))
    assert again.keys() == state.keys()
    assert all(torch.equal(again[name], tensor) for name, tensor in state.items())
    for key in ("dropout", "tokenizer_name", "sinusoidal_cat_pos_emb", "rms_norm", "ln_bias", "d_pos_emb", "sink"):
        assert options[key] == config[key]
    if config["afrac"] and config["afrac_loctypes"] and config["n_layer"]:
        assert options["afrac"] == config["afrac"]
        assert sorted(options["afrac_loctypes"].split(",")) == sorted(config["afrac_loctypes"].split(","))


def test_what_is_left_out_of_the_configuration_has_the_releases_defaults(tmp_path: Path) -> None:
    state = random_state(SMALL)
    del state["final_logits_bias"]
    model = load_openai(write(tmp_path, SMALL, state))
    c = model.config
    assert (c["norm"], c["norm_eps"], c["tied"], c["bias"]) == ("layer", 1e-5, True, True)
    assert (model.d_head, model.d_mlp, c["activation_density"], c["unembed_bias"]) == (3, 24, None, False)
    afrac = load_openai(write(tmp_path, {**SMALL, "afrac": 0.5}, state)).config["activation_density"]
    assert sorted(afrac) == ["*.attn.in", "*.attn.out", "*.mlp.in", "*.mlp.out"]


def test_constants_and_precisions_of_other_training_set_ups_are_read(tmp_path: Path) -> None:
    config = {**SMALL, "flash": False, "use_tied_aux_matrix": False, "some_new_option": False}
    state = {name: tensor.bfloat16() for name, tensor in random_state(SMALL).items()}
    state["transformer.h.0.mlp.c_fc.weight"] = state["transformer.h.0.mlp.c_fc.weight"].to_sparse()
    for i in range(2):
        state[f"transformer.h.{i}.attn.bias"] = torch.ones(1, 1, 4, 4).tril()
    model = load_openai(write(tmp_path, config, state))
    assert model.unembed.weight.dtype == torch.float32
    assert torch.equal(model.unembed.weight, state["lm_head.weight"].float())
    expected = Release(config, {k: v.to_dense().float() for k, v in state.items()})([0, 1, 2])
    assert np.abs(model.double()(torch.tensor([[0, 1, 2]])).detach().numpy()[0] - expected).max() < 1e-9


@pytest.mark.parametrize("name", ["lm_head.weight", "transformer.wte.weight"])
def test_a_tied_tensor_may_be_there_once_only(name: str, tmp_path: Path) -> None:
    state = random_state(SMALL)
    whole = load_openai(write(tmp_path / "whole", SMALL, state))
    once = load_openai(write(tmp_path / "once", SMALL, {k: v for k, v in state.items() if k != name}))
    assert torch.equal(once(torch.tensor([[0, 1]])), whole(torch.tensor([[0, 1]])))


def test_loading_leaves_the_random_state_alone(tmp_path: Path) -> None:
    write(tmp_path, SMALL, random_state(SMALL))
    before = torch.get_rng_state()
    load_openai(tmp_path)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("positions", "written"), [("none", "learned"), ("sinusoidal", "learned"), ("sinusoidal_concatenated",) * 2]
)
def test_positions_that_are_no_parameters_are_written_as_a_table(positions: Any, written: str, tmp_path: Path) -> None:
    model = Transformer(5, 4, d_model=8, n_heads=2, norm="layer", norm_eps=1e-5, positions=positions).eval()
    save_openai(model, tmp_path)
    again = load_openai(tmp_path)
    assert again.config["positions"] == written.replace("sinusoidal", "learned")
    tokens = torch.tensor([[0, 1, 2, 3]])
    assert torch.equal(again(tokens), model(tokens))


OURS: dict[str, dict[str, Any]] = {
    "eight sites": {"norm": "rms", "norm_eps": 2.0**-23, "activation_density": 0.5, "sink": True, "bigram": True},
    "residual sites": {"activation_density": {"*.residual": 0.7, "*.attn.[qk]": 0.7}, "residual_activation": "relu"},
    "narrow": {"d_head": 5, "d_mlp": 3, "bias": False, "unembed_bias": True, "norm_bias": False, "activation": "relu"},
    "concatenated": {"positions": "learned_concatenated", "d_position": 3, "unembed_bias": False},
    "tied": {"tied": True},
}


@pytest.mark.parametrize("case", OURS)
def test_a_model_of_ours_goes_out_and_comes_back_as_the_same(case: str, tmp_path: Path) -> None:
    model = Transformer(5, 4, **{"norm": "layer", "norm_eps": 1e-5, "d_model": 6, "n_heads": 2, **OURS[case]}).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0)))
    save_openai(model, tmp_path)
    again = load_openai(tmp_path)
    tokens = torch.tensor([[0, 1, 2, 3], [4, 3, 0, 0]])
    assert torch.equal(again(tokens), model(tokens))
    state = again.state_dict()
    assert all(torch.equal(state[name], tensor) for name, tensor in model.state_dict().items())
    assert {name: site.keep for name, site in again.sites.items()} == {
        name: site.keep for name, site in model.sites.items()
    }


# -- refused -----------------------------------------------------------------------------------------------------------

OPTIONS: dict[str, tuple[dict[str, Any], str]] = {
    "unknown option": ({"rotary": True}, "the option rotary is unknown and might change what the model computes"),
    "tied auxiliary matrix": ({"use_tied_aux_matrix": True}, "use_tied_aux_matrix is not supported"),
    "activation": ({"activation_type": "silu"}, "activation_type must be one of gelu, relu, got 'silu'"),
    "residual activation": ({"residual_activation_type": "gelu"}, "residual_activation_type must be one of identity"),
    "unknown place": ({"afrac": 0.5, "afrac_loctypes": "attn_in,attn_y"}, "afrac_loctypes names 'attn_y'"),
    "places that are no text": ({"afrac": 0.5, "afrac_loctypes": ["attn_in"]}, "afrac_loctypes must be a text"),
    "share of 0": ({"afrac": 0.0}, r"afrac must lie in \(0, 1\] or be null, got 0.0"),
    "share of 2": ({"afrac": 2}, r"afrac must lie in \(0, 1\] or be null, got 2"),
    "nothing kept": ({"afrac": 0.1}, "afrac 0.1 keeps none of the 6 channels of attn_in"),
    "no heads": ({"n_head": 0}, "n_head must be a whole number of at least 1, got 0"),
    "half a layer": ({"n_layer": 1.5}, "n_layer must be a whole number of at least 0, got 1.5"),
    "width as text": ({"d_mlp": "24"}, "d_mlp must be a whole number of at least 1, got '24'"),
    "no position channels": ({"d_pos_emb": 0}, "d_pos_emb must be a whole number of at least 1, got 0"),
    "switch as a number": ({"sink": 1}, "sink must be true or false, got 1"),
    "heads that do not fit": ({"n_head": 4}, "d_model 6 is not a multiple of n_head 4"),
    "a sink without its tensors": (
        {"sink": True},
        r"transformer\.h\.0\.attn\.attn_imp\.sink_logit, with 1 more is miss",
    ),
    "another width": (
        {"d_mlp": 12},
        r"mlp\.c_fc\.\w+ is torch.float32 of shape .* the configuration needs real numbers",
    ),
    "no biases": ({"bias": False}, r"the tensor transformer\.h\.0\.attn\.c_attn\.bias, with 7 more is unknown"),
}


@pytest.mark.parametrize("case", OPTIONS)
def test_an_option_that_cannot_be_right_is_refused_by_name(case: str, tmp_path: Path) -> None:
    options, message = OPTIONS[case]
    write(tmp_path, {**SMALL, **options}, random_state(SMALL))
    with pytest.raises(SparselitError, match=message) as error:
        load_openai(tmp_path)
    assert len(str(error.value).splitlines()) == 1


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def untie(folder: Path) -> None:
    state = random_state(SMALL)
    write(folder, SMALL, {**state, "lm_head.weight": state["lm_head.weight"] + 1})


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "no folder": (lambda f: [p.unlink() for p in f.iterdir()] and f.rmdir(), "is no folder; name one that holds"),
    "no configuration": (lambda f: (f / "beeg_config.json").unlink(), "beeg_config.json' does not exist"),
    "no weights": (lambda f: (f / "final_model.pt").unlink(), "final_model.pt' does not exist"),
    "truncated configuration": (lambda f: cut(f / "beeg_config.json"), "beeg_config.json' cannot be read"),
    "truncated weights": (lambda f: cut(f / "final_model.pt"), "final_model.pt' cannot be read: it is truncated"),
    "empty weights": (lambda f: (f / "final_model.pt").write_bytes(b""), "final_model.pt' cannot be read"),
    "a list": (lambda f: (f / "beeg_config.json").write_text("[]"), "holds no object of options"),
    "a whole model": (
        lambda f: (f / "final_model.pt").write_bytes(pickle.dumps({"x": Path("x")})),
        "holds something other than tensors|cannot be read",
    ),
    "numbers only": (lambda f: torch.save({"a": 1}, f / "final_model.pt"), "is no dictionary of tensors"),
    "whole numbers": (
        lambda f: write(f, SMALL, {**random_state(SMALL), "final_logits_bias": torch.arange(5)}),
        "the tensor final_logits_bias is torch.int64",
    ),
    "untied": (untie, "tied_unembed is true, but transformer.wte.weight and lm_head.weight differ"),
}


@pytest.mark.parametrize("case", DAMAGE)
def test_damaged_files_are_refused_in_one_line(case: str, tmp_path: Path) -> None:
    damage, message = DAMAGE[case]
    folder = write(tmp_path / "model", SMALL, random_state(SMALL))
    damage(folder)
    with pytest.raises(SparselitError, match=message) as error:
        load_openai(folder)
    assert len(str(error.value).splitlines()) == 1


RELEASED: dict[str, Any] = {"norm": "layer", "norm_eps": 1e-5, "d_model": 6, "n_heads": 2}
MODELS: dict[str, tuple[dict[str, Any], str]] = {
    "no norm": ({"norm": "none"}, "a model with norm 'none' cannot be written"),
    "epsilon": ({"norm": "rms", "norm_eps": 0.01}, "norm_eps 0.01 cannot be written.*1.1920928955078125e-07"),
    "GELU of GPT-2": ({"activation": "gelu_new"}, "activation 'gelu_new' cannot be written"),
    "attention only": ({"d_mlp": 0}, "d_mlp 0 cannot be written"),
    "residual GELU": ({"residual_activation": "gelu"}, "residual_activation 'gelu' cannot be written"),
    "heads": ({"n_heads": 4, "d_head": 2}, "d_model 6 is no multiple of n_heads 4"),
    "two shares": ({"activation_density": {"*.mlp.act": 0.5, "*.mlp.in": 0.4}}, "activation_density cannot be written"),
    "one layer only": ({"activation_density": {"layers.0.mlp.act": 0.5}}, "activation_density cannot be written"),
    "another site": ({"activation_density": {"*.attn.z": 0.5}}, "activation_density cannot be written"),
    "one of nothing": ({"activation_density": {"*.mlp.in": 0.1}}, "activation_density cannot be written"),
}


@pytest.mark.parametrize("case", MODELS)
def test_a_model_that_the_release_cannot_express_is_refused_and_nothing_is_written(case: str, tmp_path: Path) -> None:
    config, message = MODELS[case]
    with pytest.raises(SparselitError, match=message):
        save_openai(Transformer(5, 4, **{**RELEASED, **config}), tmp_path / "model")
    assert not (tmp_path / "model").exists()
