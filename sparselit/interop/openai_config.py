"""``beeg_config.json``, the configuration of OpenAI's ``circuit_sparsity`` release, and our transformer's arguments.

Every option that changes the forward pass is translated or refused by name. The defaults are the release's.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from sparselit.errors import SparselitError
from sparselit.model.transformer import Transformer

Config = dict[str, Any]

#: What must be given as a whole number of at least the second value; the first is the default.
SIZES = {
    "block_size": (1024, 1),
    "vocab_size": (50304, 1),
    "n_layer": (12, 0),
    "n_head": (12, 1),
    "d_model": (768, 1),
}
#: Sizes that may be null, which means that they follow from the others or that the option is off.
OPTIONAL_SIZES = ("d_head", "d_mlp", "d_pos_emb")
SWITCHES = {
    "bias": True,
    "ln_bias": True,
    "rms_norm": False,
    "tied_unembed": True,
    "enable_bigram_table": False,
    "sink": False,
}
CHOICES = {"activation_type": ("gelu", "relu"), "residual_activation_type": ("identity", "relu")}
#: Training, speed and bookkeeping. Positions that were sinusoids are a table in the weights like learned ones.
INERT = (
    "dropout",
    "dropout_cat_pos_emb",
    "debug_nans",
    "enable_sparse_kernels",
    "flash",
    "grad_checkpointing",
    "learnable_bigram_table",
    "sinusoidal_cat_pos_emb",
    "tokenizer_name",
)
#: Where AbsTopK can stand: the release's names, and the sites of each layer.
LOCTYPES = {
    "attn_in": "attn.in",
    "attn_q": "attn.q",
    "attn_k": "attn.k",
    "attn_v": "attn.v",
    "attn_out": "attn.out",
    "resid_post_attn": "attn.residual",
    "mlp_in": "mlp.in",
    "mlp_neuron": "mlp.act",
    "mlp_out": "mlp.out",
    "resid_post_mlp": "mlp.residual",
}
DEFAULT_LOCTYPES = "attn_in,attn_out,mlp_in,mlp_out"
#: The release never sets an epsilon: these are torch's defaults, in single precision, of its two norms.
EPSILON = {"rms": torch.finfo(torch.float32).eps, "layer": 1e-5}


def transformer_arguments(config: Mapping[str, Any], unembed_bias: bool) -> dict[str, Any]:
    """Translate a configuration.

    Args:
        config: content of ``beeg_config.json``; what it leaves out has the release's default.
        unembed_bias: whether the weights have a bias of the logits (``final_logits_bias``).

    Returns:
        Arguments of :class:`Transformer`.

    Raises:
        SparselitError: an option is unknown, or has a value with no equal here; the message names it.
    """
    options = _checked(config)
    if options["d_head"] is None and options["d_model"] % options["n_head"]:
        raise SparselitError(
            f"d_model {options['d_model']} is not a multiple of n_head {options['n_head']} and d_head is not given"
        )
    norm = "rms" if options["rms_norm"] else "layer"
    arguments = {
        "vocab_size": options["vocab_size"],
        "max_length": options["block_size"],
        "n_layers": options["n_layer"],
        "d_model": options["d_model"],
        "n_heads": options["n_head"],
        "d_head": options["d_head"] or options["d_model"] // options["n_head"],
        "d_mlp": options["d_mlp"] or 4 * options["d_model"],
        "norm": norm,
        "norm_eps": EPSILON[norm],
        "norm_bias": options["ln_bias"],
        "bias": options["bias"],
        "unembed_bias": unembed_bias,
        "positions": "learned" if options["d_pos_emb"] is None else "learned_concatenated",
        "d_position": options["d_pos_emb"],
        "sink": options["sink"],
        "bigram": options["enable_bigram_table"],
        "activation": options["activation_type"],
        "residual_activation": options["residual_activation_type"],
        "tied": options["tied_unembed"],
    }
    arguments["activation_density"] = _activation_density(options, arguments)
    return arguments


def _checked(config: Mapping[str, Any]) -> Config:
    """Every option that changes the forward pass, with its default where it is not given."""
    given = dict(config)
    if "n_mlp" in given:  # the older name of d_mlp
        given["d_mlp"] = given.pop("n_mlp")
    if given.pop("use_tied_aux_matrix", False):
        raise SparselitError("use_tied_aux_matrix is not supported; only checkpoints without it can be read")
    known = {*SIZES, *OPTIONAL_SIZES, *SWITCHES, *CHOICES, *INERT, "afrac", "afrac_loctypes"}
    for key in sorted(given.keys() - known):
        if given[key] is not None and given[key] is not False:
            raise SparselitError(
                f"the option {key} is unknown and might change what the model computes; remove it where it does not"
            )
    options: Config = {}
    for key, (default, least) in SIZES.items():
        options[key] = _size(key, given.get(key, default), least)
    for key in OPTIONAL_SIZES:
        options[key] = None if given.get(key) is None else _size(key, given[key], 1)
    for key, switch in SWITCHES.items():
        options[key] = given.get(key, switch)
        if not isinstance(options[key], bool):
            raise SparselitError(f"{key} must be true or false, got {options[key]!r}")
    for key, choices in CHOICES.items():
        options[key] = given.get(key, choices[0])
        if options[key] not in choices:
            raise SparselitError(f"{key} must be one of {', '.join(choices)}, got {options[key]!r}")
    options["afrac"] = given.get("afrac")
    options["afrac_loctypes"] = given.get("afrac_loctypes", DEFAULT_LOCTYPES)
    return options


def _size(key: str, value: object, least: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise SparselitError(f"{key} must be a whole number of at least {least}, got {value!r}")
    return value


def _activation_density(options: Config, arguments: Config) -> dict[str, float] | None:
    """AbsTopK as a mapping from sites to shares; None where it stands nowhere."""
    share, listed = options["afrac"], options["afrac_loctypes"]
    if share is None:
        return None
    if isinstance(share, bool) or not isinstance(share, int | float) or not 0 < share <= 1:
        raise SparselitError(f"afrac must lie in (0, 1] or be null, got {share!r}")
    if not isinstance(listed, str):
        raise SparselitError(f"afrac_loctypes must be a text of names with commas between them, got {listed!r}")
    names = [name for name in listed.split(",") if name]
    d_read = arguments["d_model"] + (arguments["d_position"] or 0)
    d_heads = arguments["n_heads"] * arguments["d_head"]
    widths: dict[str, int] = dict.fromkeys(("attn_q", "attn_k", "attn_v"), d_heads)
    widths |= {"attn_in": d_read, "mlp_in": d_read, "mlp_neuron": arguments["d_mlp"]}
    for name in names:
        if name not in LOCTYPES:
            raise SparselitError(f"afrac_loctypes names {name!r}, which is none of {', '.join(LOCTYPES)}")
        width = widths[name] if name in widths else arguments["d_model"]
        if int(share * width) < 1:
            raise SparselitError(
                f"afrac {share} keeps none of the {width} channels of {name}; it must keep at least one"
            )
    return {f"*.{LOCTYPES[name]}": float(share) for name in names} or None


def openai_config(model: Transformer, others: Mapping[str, Any] | None = None) -> Config:
    """The configuration with which the release computes what ``model`` computes.

    Args:
        model: a transformer.
        others: options that do not change the forward pass (``tokenizer_name``, ``dropout`` …), taken over as they are.

    Raises:
        SparselitError: the model has something that the release cannot express; the message names it.
    """
    c = model.config
    kept = {key: value for key, value in (others or {}).items() if key in INERT}
    if c["norm"] == "none":
        raise SparselitError("the release always normalises; a model with norm 'none' cannot be written in its format")
    if c["norm_eps"] != EPSILON[c["norm"]]:
        raise SparselitError(
            f"norm_eps {c['norm_eps']} cannot be written: the release computes a {c['norm']} norm with "
            f"{EPSILON[c['norm']]}"
        )
    if c["activation"] not in CHOICES["activation_type"]:
        raise SparselitError(f"activation {c['activation']!r} cannot be written: the release has none")
    if not model.d_mlp:
        raise SparselitError("d_mlp 0 cannot be written: every layer of the release has neurons")
    if c["residual_activation"] not in CHOICES["residual_activation_type"]:
        raise SparselitError(
            f"residual_activation {c['residual_activation']!r} cannot be written: the release has none"
        )
    if c["d_model"] % c["n_heads"]:
        raise SparselitError(
            f"d_model {c['d_model']} is no multiple of n_heads {c['n_heads']}, which the release requires"
        )
    share, loctypes = _top_k(model)
    concatenated = c["positions"].endswith("concatenated")
    return {
        "block_size": c["max_length"],
        "vocab_size": c["vocab_size"],
        "n_layer": c["n_layers"],
        "n_head": c["n_heads"],
        "d_head": model.d_head,
        "d_model": c["d_model"],
        "d_mlp": model.d_mlp,
        "bias": c["bias"],
        "ln_bias": c["norm_bias"],
        "rms_norm": c["norm"] == "rms",
        "residual_activation_type": c["residual_activation"],
        "activation_type": c["activation"],
        "afrac": share,
        "afrac_loctypes": loctypes,
        "tied_unembed": c["tied"],
        "enable_bigram_table": c["bigram"],
        "learnable_bigram_table": c["bigram"],
        "d_pos_emb": model.d_concatenated if concatenated else None,
        "sink": c["sink"],
        "flash": True,
        **kept,
    }


def _top_k(model: Transformer) -> tuple[float | None, str]:
    """The one share of AbsTopK and the locations where it stands, in the release's words."""
    keeps = {name: site.keep for name, site in model.sites.items() if site.keep is not None}
    if not keeps:
        return None, DEFAULT_LOCTYPES
    density: float | dict[str, float] = model.config["activation_density"]
    ends = {name.split(".", 2)[-1] for name in keeps}
    loctypes = [name for name, end in LOCTYPES.items() if end in ends]
    for share in dict.fromkeys(density.values() if isinstance(density, dict) else [density]):
        expected = {
            f"layers.{i}.{LOCTYPES[name]}": int(share * model.sites[f"layers.{i}.{LOCTYPES[name]}"].width)
            for i in range(len(model.layers))
            for name in loctypes
        }
        if expected == keeps:
            return share, ",".join(loctypes)
    raise SparselitError(
        "activation_density cannot be written: the release keeps one share at the same of ten locations in every layer"
    )
