"""A circuit as a short program in numpy, which can be read as the algorithm and gives the circuit's logits.

Everything that does not depend on the prompt is folded into constants: biases, what removed edges contribute, residual
channels that nothing in the circuit writes. What is left has one line for each node.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sparselit.circuits.circuit import Circuit
from sparselit.circuits.loaded import Loaded, load
from sparselit.errors import SparselitError

#: What a node is worth: a number, or the name of an array (position,) in the program.
Value = float | str

_HEAD = '''"""{title}

{facts}
Written by `sparselit export {file} --to python`. `logits(tokens)` gives what the circuit computes at every position.
"""

import math
import sys

import numpy as np

VOCABULARY = {vocabulary}

'''
_HELPERS = {
    "look": '''def look(indices, values):
    """One number for each token (or position): that of a table, or zero."""
    return np.array([values.get(int(i), 0.0) for i in indices])
''',
    "attend": '''def attend(scores, sink=None):
    """Softmax over the tokens so far; a sink takes its share without giving a value."""
    scores = np.where(np.tri(len(scores), dtype=bool), scores, -np.inf)
    top = scores.max(1, keepdims=True) if sink is None else np.maximum(scores.max(1, keepdims=True), sink)
    weights = np.exp(scores - top)
    rest = 0.0 if sink is None else np.exp(sink - top)
    return weights / (weights.sum(1, keepdims=True) + rest)
''',
    "average": '''def average(n):
    """Attention that looks at all tokens so far alike."""
    return np.tri(n) / np.arange(1, n + 1)[:, None]
''',
    "gelu": '''def gelu(x):
    """x times the share of a normal distribution below it."""
    return x * np.array([0.5 * (1 + math.erf(v / math.sqrt(2))) for v in np.ravel(x)]).reshape(np.shape(x))
''',
    "gelu_new": '''def gelu_new(x):
    """GPT-2's approximation of it."""
    return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
''',
    "relu": '''def relu(x):
    """What is above zero."""
    return np.maximum(x, 0.0)
''',
}
_TAIL = '''

def words(text):
    """The tokens of a text: at each place the longest word that fits."""
    tokens = []
    while text:
        word = max((w for w in VOCABULARY if w and text.startswith(w)), key=len)
        tokens.append(VOCABULARY.index(word))
        text = text[len(word):]
    return tokens


if __name__ == "__main__":
    print(VOCABULARY[int(logits(words(sys.argv[1]))[-1].argmax())])
'''


def program(record: Circuit, path: Path, prompt: str | None) -> str:
    """The program.

    Raises:
        SparselitError: the circuit has something that a program of its own nodes cannot compute.
    """
    _refuse(record)
    return _Program(load(path)).text()


def _refuse(circuit: Circuit) -> None:
    config, ablation = circuit.model.config, circuit.ablation
    problem = ""
    if ablation.kind == "resample":
        problem = "under resample ablation a removed edge carries what the full model computes on the corrupted prompt"
    elif ablation.norm == "frozen":
        problem = "with frozen norms the scale is that of the full model"
    elif ablation.kind == "mean" and ablation.per not in (None, "all"):
        problem = f"with a mean for each {ablation.per} a removed edge is no constant"
    elif config.get("activation_density") is not None:
        problem = "AbsTopK compares channels that are not in the circuit"
    elif str(config.get("positions")).endswith("concatenated") or config.get("positions") == "sinusoidal":
        problem = f"positions {config['positions']} are not written yet"
    elif config.get("residual_activation", "identity") != "identity":
        problem = f"residual_activation {config['residual_activation']} is not written yet"
    if problem:
        raise SparselitError(f"no program can be written of this circuit: {problem}")


class _Program:
    """Writes the lines, keeping for each node what it is worth."""

    def __init__(self, circuit: Loaded) -> None:
        self.circuit, self.model = circuit, circuit.model
        self.config: Mapping[str, Any] = self.model.config
        self.lines: list[str] = []
        self.used: set[str] = set()
        masks = circuit.edges.masks(circuit.kept)
        parameters = {
            name: p.detach().double().numpy() for name, p in self.model.named_parameters(remove_duplicate=False)
        }
        removes = circuit.ablation.removes_biases
        self.weights, self.constants = {}, {}
        for name, bundle in circuit.edges.bundles.items():
            if bundle.is_bias:
                continue
            weight, mask = parameters[name], masks[name].numpy().astype(bool)
            if bundle.target_axis == 1:
                weight, mask = weight.T, mask.T
            self.weights[name] = np.where(mask, weight, 0.0)
            means = circuit.engine.replacement.means.get(name)
            other = 0.0 if means is None else np.where(mask, 0.0, weight) @ means[0].double().numpy()
            bias = parameters.get(name.removesuffix("weight") + "bias", 0.0) if bundle.target_axis == 0 else 0.0
            if removes and isinstance(bias, np.ndarray):
                bias = bias * masks[name.removesuffix("weight") + "bias"].numpy()
            self.constants[name] = np.zeros(len(weight)) + other + bias
        self.parameters = parameters
        self.stream = np.zeros(self.model.d_model)  # of the channels that are numbers
        self.live: dict[int, str] = {}  # the others

    def text(self) -> str:
        """The whole program."""
        self._embed()
        for i in range(len(self.model.layers)):
            self._attention(i)
            self._mlp(i)
        self._unembed()
        circuit = self.circuit.circuit
        size = f"{circuit.size.edges} edges, {circuit.size.nodes} nodes, {circuit.ablation} ablation"
        title = f"{circuit.task.name}: the circuit of a weight-sparse transformer."
        vocabulary = list(circuit.task.vocabulary)
        head = _HEAD.format(title=title, facts=f"{size}.", file=self.circuit.path.name, vocabulary=ascii(vocabulary))
        helpers = "\n\n".join(text for name, text in _HELPERS.items() if name in self.used)
        body = "\n".join(f"    {line}" if line else "" for line in self.lines)
        main = '\n\ndef logits(tokens):\n    """One row for each position, one column for each word."""\n'
        return f"{head}\n{helpers}{main}    tokens = np.asarray(tokens)\n    n = len(tokens)\n{body}\n{_TAIL}"

    # -- parts of the model ------------------------------------------------------------------------------------------

    def _embed(self) -> None:
        self._comment("what the tokens write into the residual stream")
        self.stream += self.constants["embed.token.weight"]
        tables = [("embed.token.weight", "tokens")]
        if self.config["positions"] == "learned":
            tables.append(("embed.position.weight", "range(n)"))
            self.stream += self.constants["embed.position.weight"]
        for channel in range(self.model.d_model):
            parts = []
            for name, index in tables:
                row = self.weights[name][channel]
                if row.any():
                    parts.append(f"look({index}, {_table(row)})")
                    self.used.add("look")
            if parts:
                self._line(f"x{channel} = {_sum(self.stream[channel], parts)}", self._words(channel))
                self.live[channel] = f"x{channel}"

    def _words(self, channel: int) -> str:
        row = self.weights["embed.token.weight"][channel]
        names = [ascii(self.circuit.behaviour.vocabulary[t]) for t in row.nonzero()[0][:6]]
        return ", ".join(names)

    def _attention(self, i: int) -> None:
        block = f"layers.{i}.attn"
        out = self.weights[f"{block}.o.weight"]
        wanted = [int(channel) for channel in out.any(0).nonzero()[0]]
        heads: dict[int, list[int]] = {}
        for channel in wanted:
            heads.setdefault(channel // self.model.d_head, []).append(channel)
        patterns = {head: self._channels_of(head) for head in heads}
        reads = {letter: self.weights[f"{block}.{letter}.weight"] for letter in "qkv"}
        read = {
            int(c)
            for letter, matrix in reads.items()
            for row in (wanted if letter == "v" else [j for channels in patterns.values() for j in channels])
            for c in matrix[row].nonzero()[0]
        }
        if wanted:
            self._comment(f"attention of layer {i}")
        inside = self._normed(f"{block}.norm", sorted(read), f"a{i}")
        values: dict[int, Value] = {}
        for head, channels in heads.items():
            pattern = self._pattern(i, head, patterns[head], inside)
            for channel in channels:
                v = self._linear(f"{block}.v.weight", channel, inside)
                if isinstance(v, str):
                    self._line(f"z{i}_{channel} = {pattern} @ {self._named(f'v{i}_{channel}', v)}")
                    values[channel] = f"z{i}_{channel}"
                elif self._sink(i, head) is None:
                    values[channel] = v
                else:
                    self._line(f"z{i}_{channel} = {_number(v)} * {pattern}.sum(1)")
                    values[channel] = f"z{i}_{channel}"
        self._write(f"{block}.o.weight", values)

    def _channels_of(self, head: int) -> list[int]:
        return list(range(head * self.model.d_head, (head + 1) * self.model.d_head))

    def _sink(self, i: int, head: int) -> float | None:
        sink = self.parameters.get(f"layers.{i}.attn.sink")
        return None if sink is None else float(sink[head])

    def _pattern(self, i: int, head: int, channels: list[int], inside: Mapping[int, Value]) -> str:
        block, sink = f"layers.{i}.attn", self._sink(i, head)
        scale, name = 1 / np.sqrt(self.model.d_head), f"p{i}_{head}"
        terms, fixed = [], 0.0
        for j in channels:
            k = self._linear(f"{block}.k.weight", j, inside)
            q = self._linear(f"{block}.q.weight", j, inside)
            if isinstance(k, float) and isinstance(q, float):
                fixed += k * q * scale
            elif isinstance(q, str) and isinstance(k, float):
                if sink is not None and k:
                    terms.append(f"{_number(k * scale)} * {self._named(f'q{i}_{j}', q)}[:, None]")
            elif isinstance(k, str) and isinstance(q, float):
                if q:
                    terms.append(f"{_number(q * scale)} * {self._named(f'k{i}_{j}', k)}[None, :]")
            elif isinstance(q, str) and isinstance(k, str):
                query, key = self._named(f"q{i}_{j}", q), self._named(f"k{i}_{j}", k)
                terms.append(f"{_number(scale)} * np.outer({query}, {key})")
        if not terms and sink is None:
            self.used.add("average")
            self._line(f"{name} = average(n)", f"head {head} looks at all tokens so far alike")
            return name
        self.used.add("attend")
        if sink is not None and (fixed or not terms):
            terms.append(_number(fixed))
        whole = any("np.outer" in term for term in terms)
        scores = _sum(0.0, terms if whole else [*terms, "np.zeros((n, n))"])
        end = "" if sink is None else f", {_number(sink)}"
        self._line(f"{name} = attend({scores}{end})", f"where head {head} looks")
        return name

    def _mlp(self, i: int) -> None:
        block = f"layers.{i}.mlp"
        wanted = [int(neuron) for neuron in self.weights[f"{block}.down.weight"].any(0).nonzero()[0]]
        up = self.weights[f"{block}.up.weight"]
        if wanted:
            self._comment(f"neurons of layer {i}")
        inside = self._normed(f"{block}.norm", sorted({int(c) for h in wanted for c in up[h].nonzero()[0]}), f"m{i}")
        values: dict[int, Value] = {}
        function = str(self.config["activation"])
        for neuron in wanted:
            value = self._linear(f"{block}.up.weight", neuron, inside)
            if isinstance(value, float):
                from sparselit.model.transformer import ACTIVATIONS

                values[neuron] = float(ACTIVATIONS[function](torch.tensor(value, dtype=torch.float64)))
                continue
            self.used.add(function)
            self._line(f"h{i}_{neuron} = {function}({value})")
            values[neuron] = f"h{i}_{neuron}"
        self._write(f"{block}.down.weight", values)

    def _unembed(self) -> None:
        weight = self.weights["unembed.weight"]
        self._comment("what is read off")
        inside = self._normed("norm", [int(c) for c in weight.any(0).nonzero()[0]], "u")
        constant = self.constants["unembed.weight"].copy()
        bigram = self.weights.get("bigram.weight")
        if bigram is not None:
            constant += self.constants["bigram.weight"]
        found: list[tuple[int, str]] = []
        for word in range(len(weight)):
            terms = [_term(w, inside[int(c)]) for c, w in _entries(weight[word]) if isinstance(inside[int(c)], str)]
            constant[word] += sum(w * v for c, w in _entries(weight[word]) if isinstance(v := inside[int(c)], float))
            if bigram is not None and bigram[word].any():
                self.used.add("look")
                terms.append(f"look(tokens, {_table(bigram[word])})")
            if terms:
                found.append((word, " + ".join(terms)))
        self._line(f"out = np.zeros((n, {len(weight)}))")
        texts = dict(found)
        vocabulary = self.circuit.behaviour.vocabulary
        for word in range(len(weight)):
            if constant[word] or word in texts:
                name = ascii(vocabulary[word]) if word < len(vocabulary) else ""
                self._line(f"out[:, {word}] = {_sum(constant[word], [texts[word]] if word in texts else [])}", name)
        self._line("return out")

    # -- pieces ------------------------------------------------------------------------------------------------------

    def _normed(self, norm: str, channels: Iterable[int], prefix: str) -> dict[int, Value]:
        """What a block reads of the residual stream, by channel."""
        channels, kind = list(channels), self.config["norm"]
        raw: dict[int, Value] = {c: self.live.get(c, float(self.stream[c])) for c in channels}
        if kind == "none" or not channels:
            return raw
        still = [c for c in range(self.model.d_model) if c not in self.live]
        square, total = float(np.square(self.stream[still]).sum()), float(self.stream[still].sum())
        squares = _sum(square, [f"{name}**2" for name in self.live.values()])
        width, middle = self.model.d_model, ""
        if kind == "layer":
            self._line(f"{prefix}_mean = ({_sum(total, list(self.live.values()))}) / {width}")
            middle = f"{prefix}_mean"
        inner = f"({squares}) / {width}" + (f" - {middle}**2" if middle else "")
        self._line(f"{prefix}_scale = 1 / np.sqrt({inner} + {self.model.norm_eps!r})", "the norm")
        gain, bias = self.parameters[f"{norm}.weight"], self.parameters.get(f"{norm}.bias")
        read: dict[int, Value] = {}
        for c in channels:
            value = raw[c] if isinstance(raw[c], str) else _number(raw[c])  # type: ignore[arg-type]
            centred = f"({value} - {middle})" if middle else value
            shift = f" + {_number(bias[c])}" if bias is not None else ""
            self._line(f"{prefix}_{c} = {_number(gain[c])} * {centred} * {prefix}_scale{shift}")
            read[c] = f"{prefix}_{c}"
            if not self.live:
                self._line(f"{prefix}_{c} = {prefix}_{c} + np.zeros(n)")
        return read

    def _linear(self, name: str, target: int, inside: Mapping[int, Value]) -> Value:
        """What a node sums up: a number, or an expression."""
        constant, terms = float(self.constants[name][target]), []
        for source, weight in _entries(self.weights[name][target]):
            value = inside[source]
            if isinstance(value, float):
                constant += weight * value
            else:
                terms.append(_term(weight, value))
        return _sum(constant, terms) if terms else constant

    def _named(self, name: str, text: str) -> str:
        self._line(f"{name} = {text}")
        return name

    def _write(self, name: str, values: Mapping[int, Value]) -> None:
        """Add what a block writes to the residual stream."""
        for channel in range(self.model.d_model):
            value = self._linear(name, channel, values)
            if isinstance(value, float):
                if channel not in self.live:
                    self.stream[channel] += value
                elif value:
                    self._line(f"x{channel} = x{channel} + {_number(value)}")
                continue
            before = self.live.get(channel)
            self._line(f"x{channel} = {f'{before} + {value}' if before else _sum(self.stream[channel], [value])}")
            self.live[channel] = f"x{channel}"

    def _comment(self, text: str) -> None:
        self.lines += ["", f"# {text}"]

    def _line(self, text: str, remark: str = "") -> None:
        self.lines.append(f"{text}  # {remark}" if remark else text)


def _entries(row: np.ndarray) -> list[tuple[int, float]]:
    return [(int(i), float(row[i])) for i in row.nonzero()[0]]


def _term(weight: float, value: Value) -> str:
    return f"{_number(weight)} * {value}"


def _sum(constant: float, terms: list[str]) -> str:
    """A sum as it is written, without a zero."""
    return " + ".join([*([_number(constant)] if constant or not terms else []), *terms])


def _table(row: np.ndarray) -> str:
    return "{" + ", ".join(f"{i}: {_number(w)}" for i, w in _entries(row)) + "}"


def _number(value: float) -> str:
    """Short, and exact where the number is one of single precision."""
    single = np.float32(value)
    text = str(float(str(single))) if float(single) == float(value) else repr(float(value))
    return f"({text})" if text.startswith("-") else text
