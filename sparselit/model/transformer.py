"""The weight-sparse transformer: a GPT-2-style decoder with one forward pass and named sites (Gao et al. 2025, §2).

Tensor names and site names follow one scheme: ``layers.0.attn.q.weight`` produces the activation ``layers.0.attn.q``.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sparselit.errors import LARGEST_RATE, SparselitError, check_choice, check_range, check_whole
from sparselit.model.memory import check_memory
from sparselit.model.norm import Norm
from sparselit.model.precision import load_exactly
from sparselit.model.sites import Site, Sites

Positions = Literal["learned", "sinusoidal", "learned_concatenated", "sinusoidal_concatenated", "none"]
NormKind = Literal["rms", "layer", "none"]
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "gelu_new": partial(F.gelu, approximate="tanh"),
    "relu": F.relu,
}
# The eight places of a layer where the paper puts AbsTopK; residual sites only on request.
_LARGEST_SIZE, _MOST_LAYERS = 2**20, 1000
_TOP_K_SITES = ("*.attn.in", "*.attn.[qkv]", "*.attn.out", "*.mlp.in", "*.mlp.act", "*.mlp.out")


class Embed(nn.Module):
    """Token embedding plus an added positional embedding, if any."""

    def __init__(self, vocab_size: int, max_length: int, d_model: int, positions: Positions, out: Site) -> None:
        super().__init__()
        self.token = nn.Embedding(vocab_size, d_model)
        self.position = nn.Embedding(max_length, d_model) if positions == "learned" else None
        self.sinusoid: Tensor | None
        table = sinusoids(max_length, d_model) if positions == "sinusoidal" else None
        self.register_buffer("sinusoid", table, persistent=False)
        self._out = out

    def forward(self, tokens: Tensor) -> Tensor:
        """Tokens (batch, position) to the residual stream (batch, position, channel)."""
        x = self.token(tokens)
        if self.position is not None:
            x = x + self.position.weight[: tokens.shape[1]]
        elif self.sinusoid is not None:
            x = x + self.sinusoid[: tokens.shape[1]]
        return self._out(x)


class Block(nn.Module):
    """What attention and MLP share: the norm and the site at which they read the residual stream.

    Positional embeddings that are concatenated, where the model has them, join after the norm.
    """

    def __init__(self, model: Transformer, name: str) -> None:
        super().__init__()
        self.d_in = model.d_model + model.d_concatenated
        self.norm = model.make_norm(model.d_model, f"{name}.scale")
        self.position_norm = (
            model.make_norm(model.d_concatenated, f"{name}.position_scale") if model.d_concatenated else None
        )
        self._in = model.sites.add(f"{name}.in", self.d_in)

    def read(self, x: Tensor, positions: Tensor | None) -> Tensor:
        """What the block sees of the residual stream, (batch, position, channel)."""
        x = self.norm(x)
        if self.position_norm is not None and positions is not None:
            x = torch.cat([x, self.position_norm(positions).expand(*x.shape[:-1], -1)], dim=-1)
        return self._in(x)


class Attention(Block):
    """Causal multi-head attention with an optional sink: one learnable logit per head whose value is zero."""

    def __init__(self, model: Transformer, name: str) -> None:
        super().__init__(model, name)
        self.n_heads, self.d_head = model.n_heads, model.d_head
        width, sites = model.n_heads * model.d_head, model.sites
        self.q, self.k, self.v = (nn.Linear(self.d_in, width, bias=model.bias) for _ in range(3))
        self.o = nn.Linear(width, model.d_model, bias=model.bias)
        self.sink = nn.Parameter(torch.zeros(model.n_heads)) if model.has_sink else None
        self._q, self._k, self._v = (sites.add(f"{name}.{letter}", width) for letter in "qkv")
        self._pattern = sites.add(f"{name}.pattern", 0)
        self._z = sites.add(f"{name}.z", width)
        self._out = sites.add(f"{name}.out", model.d_model)

    def forward(self, x: Tensor, positions: Tensor | None, at: Tensor | None) -> Tensor:
        """Residual stream (batch, position, channel) to what is added to it, at all positions or at ``at`` only."""
        read = self.read(x, positions)
        k, v = self._split(self._k(self.k(read))), self._split(self._v(self.v(read)))
        q = self._split(self._q(self.q(read if at is None else _rows(read, at))))
        key = torch.arange(x.shape[1], device=x.device)
        query = key[:, None] if at is None else at[:, None, None, None]
        z = self._mix(q, k, v, key <= query)
        return self._out(self.o(self._z(self._join(z))))  # (batch, query, channel)

    def _join(self, z: Tensor) -> Tensor:
        # Contiguous also where heads have one channel: what a product rounds to depends on it.
        return z.transpose(1, 2).flatten(2).contiguous()  # (batch, query, channel)

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.n_heads, -1)).transpose(1, 2)  # (batch, head, position, channel)

    def _mix(self, q: Tensor, k: Tensor, v: Tensor, allowed: Tensor) -> Tensor:
        """Attention-weighted values (batch, head, query, channel); ``allowed`` (batch, head, query, key)."""
        scale = 1 / math.sqrt(self.d_head)
        if not self._pattern.attached and self.sink is None:
            return F.scaled_dot_product_attention(q, k, v, attn_mask=allowed, scale=scale)
        scores = (q @ k.transpose(-1, -2) * scale).masked_fill(~allowed, -math.inf)
        if self.sink is not None:
            sink = self.sink[:, None, None].expand(*scores.shape[:-1], 1)
            pattern = torch.cat([scores, sink], dim=-1).softmax(-1)[..., :-1]
        else:
            pattern = scores.softmax(-1)
        return self._pattern(pattern) @ v


class MLP(Block):
    """One hidden layer of neurons."""

    def __init__(self, model: Transformer, name: str) -> None:
        super().__init__(model, name)
        with warnings.catch_warnings():  # torch's, on tensors without entries
            warnings.filterwarnings("ignore", "Initializing zero-element tensors")
            self.up = nn.Linear(self.d_in, model.d_mlp, bias=model.bias)
            self.down = nn.Linear(model.d_mlp, model.d_model, bias=model.bias)
        self._act = model.sites.add(f"{name}.act", model.d_mlp, ACTIVATIONS[model.activation])
        self._out = model.sites.add(f"{name}.out", model.d_model)

    def forward(self, x: Tensor, positions: Tensor | None) -> Tensor:
        """Residual stream to what is added to it, same shape."""
        return self._out(self.down(self._act(self.up(self.read(x, positions)))))


class Layer(nn.Module):
    """Attention, then MLP, each added to the residual stream."""

    def __init__(self, model: Transformer, name: str) -> None:
        super().__init__()
        residual = ACTIVATIONS.get(model.residual_activation)
        self.attn = Attention(model, f"{name}.attn")
        self._mid = model.sites.add(f"{name}.attn.residual", model.d_model, residual)
        self.mlp = MLP(model, f"{name}.mlp")
        self._end = model.sites.add(f"{name}.mlp.residual", model.d_model, residual)

    def forward(self, x: Tensor, positions: Tensor | None, at: Tensor | None = None, attended: bool = False) -> Tensor:
        """Residual stream in and out; with ``at``, out at those positions only (batch, 1, channel).

        Where it has ``attended`` already, what comes in is the stream after the attention.
        """
        if not attended:
            written = self.attn(x, positions, at)
            x = self._mid((x if at is None else _rows(x, at)) + written)
        if at is not None and positions is not None:
            positions = positions[at][:, None] if positions.ndim == 2 else _rows(positions, at)
        return self._end(x + self.mlp(x, positions))


class Transformer(nn.Module):
    """GPT-2-style pre-norm decoder whose every activation passes through a named site.

    Args:
        vocab_size: tokens in the vocabulary.
        max_length: longest sequence, tokens (the size of the positional table).
        n_layers: attention + MLP blocks.
        d_model: channels of the residual stream.
        n_heads: attention heads in each layer.
        d_head: channels of each head; default ``d_model / n_heads``.
        d_mlp: neurons in each layer; default ``4 * d_model``; 0 for attention only.
        norm: ``rms`` keeps the meaning of zero, so it suits sparse models; ``layer`` and ``none`` for comparison.
        norm_eps: added to the mean square under the root. Far above the usual 1e-7 on purpose: with few live channels
            a small value makes 1/rms, and with it sparse training, explode.
        norm_bias: learnable shift of ``layer`` norms.
        bias: biases of all linear maps inside the layers.
        unembed_bias: one learnable bias per logit; default as ``bias``.
        positions: positional embedding: added to the token embedding, concatenated to what each block reads, or none.
        d_position: channels of a concatenated positional embedding; default ``d_model``.
        sink: one learnable attention logit per head with value zero.
        bigram: dense vocabulary x vocabulary table added to the logits; never sparsified.
        activation: nonlinearity of the neurons; ``gelu_new`` is GPT-2's approximation by tanh.
        residual_activation: nonlinearity of the residual stream after each addition.
        tied: the unembedding shares the token embedding's tensor.
        activation_density: AbsTopK, the share of entries kept in (0, 1]: one number for the paper's eight sites of a
            layer, or a mapping from globs on site names (``"*.mlp.act"``) to shares; null for none.
        init_std: standard deviation of the initial weights.

    Raises:
        SparselitError: a value is out of range; the message names it.

    Examples:
        >>> model = Transformer(vocab_size=5, max_length=6, n_layers=1, d_model=8, n_heads=2)
        >>> tokens = torch.tensor([[0, 3, 1]])
        >>> model(tokens).shape  # logits (batch, position, vocabulary)
        torch.Size([1, 3, 5])
        >>> model(tokens, at=torch.tensor([2])).shape  # after the last token only
        torch.Size([1, 5])
    """

    always_dense: ClassVar[tuple[str, ...]] = ("bigram.*",)

    def __init__(
        self,
        vocab_size: int,
        max_length: int,
        n_layers: int = 2,
        d_model: int = 64,
        n_heads: int = 4,
        d_head: int | None = None,
        d_mlp: int | None = None,
        norm: NormKind = "rms",
        norm_eps: float = 0.01,
        norm_bias: bool = True,
        bias: bool = True,
        unembed_bias: bool | None = None,
        positions: Positions = "learned",
        d_position: int | None = None,
        sink: bool = False,
        bigram: bool = False,
        activation: Literal["gelu", "gelu_new", "relu"] = "gelu",
        residual_activation: Literal["identity", "gelu", "gelu_new", "relu"] = "identity",
        tied: bool = False,
        activation_density: float | dict[str, float] | None = None,
        init_std: float = 0.02,
    ) -> None:
        super().__init__()
        self.config: dict[str, Any] = {k: v for k, v in locals().items() if k not in ("self", "__class__")}
        for key in ("vocab_size", "max_length", "d_model", "n_heads"):
            check_whole(f"model.{key}", self.config[key], 1, most=_LARGEST_SIZE)
        for key in ("d_head", "d_mlp", "d_position"):
            if self.config[key] is not None:
                check_whole(f"model.{key}", self.config[key], int(key != "d_mlp"), most=_LARGEST_SIZE)
        check_whole("model.n_layers", n_layers, 0, most=_MOST_LAYERS)
        check_range("model.norm_eps", norm_eps, 0, most=LARGEST_RATE)
        check_range("model.init_std", init_std, 0, most=LARGEST_RATE)
        for key, choices in (
            ("norm", get_args(NormKind)),
            ("positions", get_args(Positions)),
            ("activation", tuple(ACTIVATIONS)),
            ("residual_activation", ("identity", *ACTIVATIONS)),
        ):
            check_choice(f"model.{key}", self.config[key], choices)
        if d_head is None and d_model % n_heads:
            raise SparselitError(f"model.d_model {d_model} is not a multiple of n_heads {n_heads}; set model.d_head")
        self.d_model, self.n_heads = d_model, n_heads
        self.d_head = d_head or d_model // n_heads
        self.d_mlp = 4 * d_model if d_mlp is None else d_mlp
        check_memory({**self.config, "d_head": self.d_head, "d_mlp": self.d_mlp})
        self.max_length = max_length
        self.norm_kind, self.norm_eps, self.norm_bias = norm, norm_eps, norm_bias
        self.bias, self.has_sink = bias, sink
        self.activation, self.residual_activation = activation, residual_activation
        self.d_concatenated = (d_position or d_model) if positions.endswith("concatenated") else 0

        self.sites = Sites()
        self.embed = Embed(vocab_size, max_length, d_model, positions, self.sites.add("embed", d_model))
        self.positions: nn.Embedding | None = None
        self.sinusoid: Tensor | None
        table = None
        if self.d_concatenated:
            self._positions = self.sites.add("positions", self.d_concatenated)
        if positions == "learned_concatenated":
            self.positions = nn.Embedding(max_length, self.d_concatenated)
        elif positions == "sinusoidal_concatenated":
            table = sinusoids(max_length, self.d_concatenated)
        self.register_buffer("sinusoid", table, persistent=False)
        self.layers = nn.ModuleList(Layer(self, f"layers.{i}") for i in range(n_layers))
        self.norm = self.make_norm(d_model, "unembed.scale")
        self._read = self.sites.add("unembed.in", d_model)
        self.unembed = nn.Linear(d_model, vocab_size, bias=bias if unembed_bias is None else unembed_bias)
        self.bigram = nn.Embedding(vocab_size, vocab_size) if bigram else None
        self._logits = self.sites.add("logits", vocab_size)
        self._initialise(init_std)
        if tied:
            self.unembed.weight = self.embed.token.weight
        self._sparsify_activations(activation_density)

    def make_norm(self, width: int, scale: str) -> Norm:
        """A norm of the model's kind over ``width`` channels, with its scale at the site named ``scale``."""
        return Norm(self.norm_kind, width, self.norm_eps, self.norm_bias, self.sites.add(scale, 1))

    def _initialise(self, std: float) -> None:
        if self.unembed.weight.is_meta:
            return  # there is nothing to fill yet
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.normal_(module.weight, std=std)
            if isinstance(module, nn.Linear) and module.bias is not None:
                nn.init.zeros_(module.bias)
        if self.bigram is not None:
            nn.init.zeros_(self.bigram.weight)

    def _sparsify_activations(self, density: float | dict[str, float] | None) -> None:
        if density is None or not len(self.layers):
            return
        shares = density if isinstance(density, dict) else dict.fromkeys(_TOP_K_SITES, density)
        for pattern, share in shares.items():
            check_range("model.activation_density", share, 0, 1, above=True)
            for site in self.sites.matching(pattern):
                if site.width < 1 and site.name.endswith(".mlp.act"):
                    continue  # no neurons
                if site.width < 1:
                    raise SparselitError(
                        f"model.activation_density: {pattern!r} matches {site.name}, whose last axis counts keys"
                    )
                site.keep = max(1, int(share * site.width))

    def forward(self, tokens: Tensor, at: Tensor | None = None, resume: tuple[int, Tensor] | None = None) -> Tensor:
        """Next-token logits.

        Args:
            tokens: (batch, position) int64.
            at: (batch,) int64, the one position of each sequence whose logits are wanted; everything that only other
                positions need is left out. None for all positions.
            resume: how many blocks are done already (attention and MLP count one each), at least 1, and the residual
                stream after them for the same tokens and ``at``.

        Returns:
            Logits (batch, position, vocabulary), or (batch, vocabulary) with ``at``.
        """
        length = tokens.shape[1]
        if length > self.max_length:
            raise SparselitError(f"a sequence of {length} tokens is longer than model.max_length {self.max_length}")
        positions = self.positions.weight if self.positions is not None else self.sinusoid
        if positions is not None:
            positions = self._positions(positions[:length])
        done, x = resume or (0, self.embed(tokens))
        last = len(self.layers) - 1
        for i in range(done // 2, len(self.layers)):
            x = self.layers[i](x, positions, at if i == last else None, attended=done == 2 * i + 1)
        if at is not None and last < 0:
            x = _rows(x, at)
        logits = self.unembed(self._read(self.norm(x)))
        if self.bigram is not None:
            logits = logits + self.bigram(tokens if at is None else tokens.gather(1, at[:, None]))
        logits = self._logits(logits)
        return logits if at is None else logits[:, 0]

    @classmethod
    def from_checkpoint(cls, path: str | Path) -> Transformer:
        """Load the transformer of a checkpoint that ``sparselit fit`` wrote; nothing in the file is executed.

        Raises:
            SparselitError: the file is missing, truncated or not a sparselit checkpoint.
        """
        from sparselit.runs.checkpoint_file import load_checkpoint  # one reader for all commands

        checkpoint = load_checkpoint(path)
        prefix = "transformer."
        state = {k.removeprefix(prefix): v for k, v in checkpoint["state_dict"].items() if k.startswith(prefix)}
        keys = cls.config_keys()
        try:
            model = cls(**{k: v for k, v in checkpoint.get("hyper_parameters", {}).items() if k in keys})
            load_exactly(model, state)
        except (RuntimeError, TypeError, ValueError, OverflowError, MemoryError) as error:
            text = " ".join(str(error).split())[:200]
            raise SparselitError(f"checkpoint {str(path)!r} holds no transformer of sparselit: {text}") from error
        return model.eval()

    @classmethod
    def config_keys(cls) -> frozenset[str]:
        """Names of the constructor's arguments, which together describe the architecture."""
        code = cls.__init__.__code__
        return frozenset(code.co_varnames[1 : code.co_argcount])


def sinusoids(length: int, width: int) -> Tensor:
    """Sinusoidal position table (position, channel), sines then cosines (Vaswani et al. 2017, §3.5)."""
    half = (width + 1) // 2
    frequency = torch.exp(-math.log(10_000.0) * torch.arange(half) / half)
    angle = torch.arange(length)[:, None] * frequency
    return torch.cat([angle.sin(), angle.cos()], dim=-1)[:, :width]


def _rows(x: Tensor, at: Tensor) -> Tensor:
    """Row ``at[b]`` of each sequence: (batch, position, channel) to (batch, 1, channel)."""
    return x.gather(1, at[:, None, None].expand(-1, 1, x.shape[-1]))
