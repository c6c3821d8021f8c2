"""Prompt files and circuit files: what is written is what is read, byte for byte, and mistakes are named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sparselit.circuits import Behaviour, Bound, Circuit, discover, read_circuit, write_circuit
from sparselit.circuits.circuit import model_hash
from sparselit.circuits.files import read_behaviour, read_model
from sparselit.data.behaviour import prompt_record, read_examples
from sparselit.data.examples import Examples
from sparselit.errors import SparselitError
from sparselit.model.transformer import Transformer

from .models import randomised, some_behaviour, some_examples

#: Tokens on which line-based formats break: separators that only str.splitlines knows, quotes, control characters.
STRANGE = ["\u2028", "\u2029", "\u0085", "\x1c", "\n", "\r", "\t", '"', "'", "\\", "\0", "é", "😀", " ", "}"]


def equal(one: Examples, other: Examples) -> bool:
    """Equal up to the width of the padding."""
    width = int(one.length.max())
    trimmed = [e._replace(tokens=e.tokens[:, :width], corrupted=e.corrupted[:, :width]) for e in (one, other)]
    return all(torch.equal(a, b) for a, b in zip(*trimmed, strict=True))


@settings(max_examples=60, deadline=None)
@given(
    vocabulary=st.permutations(STRANGE).map(lambda words: words[:5]),
    words=st.sampled_from(["characters", "words", "one word"]),
    seed=st.integers(0, 100),
)
def test_a_behaviour_survives_its_files_whatever_the_tokens(
    tmp_path_factory: pytest.TempPathFactory, vocabulary: list[str], words: str, seed: int
) -> None:
    if words == "words":
        vocabulary = [f"{word}{i}" for i, word in enumerate(vocabulary)]
    elif words == "one word":
        vocabulary = ["", *vocabulary[1:]]
    strata = ("plain", "hard")
    examples = some_examples(seed=seed)._replace(stratum=torch.arange(16) % 2)
    folder = tmp_path_factory.mktemp("behaviour")
    paths = Behaviour({"report": examples}, vocabulary, strata).write(folder)
    assert list(paths) == ["report"]
    assert prompt_record(paths["report"], folder).n == 16
    assert equal(read_examples(paths["report"], vocabulary, strata), examples)


def test_a_second_writing_leaves_the_files_alone(tmp_path: Path) -> None:
    behaviour = some_behaviour()
    paths = behaviour.write(tmp_path / "prompts")
    assert set(paths) == {"discovery", "selection", "report"}
    times = [path.stat().st_mtime_ns for path in paths.values()]
    behaviour.write(tmp_path / "prompts")
    assert [path.stat().st_mtime_ns for path in paths.values()] == times
    paths["report"].write_text("something else\n")
    behaviour.write(tmp_path / "prompts")
    assert equal(read_examples(paths["report"], behaviour.vocabulary, ["all"]), behaviour.splits["report"])


GOOD = {"prompt": "ab", "answer": "c", "wrong": "d", "corrupted": "ba", "stratum": "all"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"prompt": "az"}, "line 2"),
        ({"answer": "z"}, "line 2"),
        ({"stratum": "hard"}, "line 2"),
        ({"answer": None}, "line 2"),
        ({"prompt": ""}, "line 2"),
        ({"corrupted": "abc"}, "line 2"),
    ],
)
def test_a_broken_line_is_named(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    path = tmp_path / "report.jsonl"
    path.write_text(json.dumps(GOOD) + "\n" + json.dumps(GOOD | change) + "\n")
    with pytest.raises(SparselitError, match=message):
        read_examples(path, "abcd", ["all"])


@pytest.mark.parametrize("content", [b"", b"{", b"[]\n", b"\xff\n", b'{"prompt": "a"}\n', b"\n", b"null\n"])
def test_a_file_without_examples_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "report.jsonl"
    path.write_bytes(content)
    with pytest.raises(SparselitError, match=r"report\.jsonl"):
        read_examples(path, "abcd", ["all"])


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SparselitError, match=r"missing\.jsonl"):
        read_examples(tmp_path / "missing.jsonl", "abcd", ["all"])
    with pytest.raises(SparselitError, match=r"missing\.jsonl"):
        prompt_record(tmp_path / "missing.jsonl", tmp_path)


# -- circuit.json ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=[{}, {"tied": True, "sink": True, "bigram": True, "norm": "layer"}])
def found(request: pytest.FixtureRequest) -> tuple[Circuit, Transformer, Behaviour]:
    model = randomised(density=0.5, **request.param)
    behaviour = some_behaviour(model)
    return discover(model, behaviour, [Bound("accuracy", at_least=0.7)], margin=0.2, ablation="zero"), model, behaviour


def test_a_circuit_survives_its_file(tmp_path: Path, found: tuple[Circuit, Transformer, Behaviour]) -> None:
    circuit, model, behaviour = found
    path = tmp_path / "circuits" / "step=7.json"
    written = write_circuit(path, circuit, model, behaviour)
    assert circuit.model.weights == "" != written.model.weights
    assert sorted(p.relative_to(tmp_path / "circuits").as_posix() for p in path.parent.rglob("*") if p.is_file()) == [
        *(f"prompts/{split}.jsonl" for split in ("discovery", "report", "selection")),
        "step=7.json",
        "step=7.safetensors",
    ]
    again = read_circuit(path)
    assert again == written
    same = read_model(path, again)
    assert model_hash(same.state_dict()) == model_hash(model.state_dict()) == circuit.model.hash
    tokens = some_examples().tokens
    assert torch.equal(same(tokens), model(tokens))
    read = read_behaviour(path, again)
    assert read.task == behaviour.task
    assert all(equal(read.splits[split], behaviour.splits[split]) for split in behaviour.splits)


def test_the_same_circuit_gives_the_same_bytes(tmp_path: Path, found: tuple[Circuit, Transformer, Behaviour]) -> None:
    _, model, behaviour = found
    contents = []
    for folder in ("one", "two"):
        circuit = discover(model, behaviour, [Bound("accuracy", at_least=0.7)], margin=0.2, ablation="zero")
        write_circuit(tmp_path / folder / "c.json", circuit, model, behaviour)
        files = sorted(p for p in (tmp_path / folder).rglob("*") if p.is_file())
        contents.append({p.relative_to(tmp_path / folder): p.read_bytes() for p in files})
    assert contents[0] == contents[1]
    before = contents[0][Path("c.json")]
    write_circuit(tmp_path / "one" / "c.json", circuit, model, behaviour)
    assert (tmp_path / "one" / "c.json").read_bytes() == before


def test_writing_does_not_untie_a_tied_model(tmp_path: Path) -> None:
    model = randomised(tied=True)
    behaviour = some_behaviour(model)
    circuit = discover(model, behaviour, [Bound("accuracy", at_least=0.5)], ablation="zero")
    write_circuit(tmp_path / "c.json", circuit, model, behaviour)
    assert model.unembed.weight is model.embed.token.weight


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda c: c.pop("edges"), "'edges' is missing or not a list"),
        (lambda c: c.update(size=[]), "'size' is missing or not a dict"),
        (lambda c: c.update(format="other"), "its format is not 'sparselit-circuit'"),
        (lambda c: c.update(version=99), "has version 99; this sparselit reads 1 and 2"),
        (lambda c: c["edges"].append(["unembed.weight", 0.5, 1, 2.0]), r"edges\[\d+\] is not \[parameter, row"),
        (lambda c: c["edges"].append(["unembed.weight", 0, 1]), r"edges\[\d+\] is not \[parameter, row"),
        (lambda c: c["edges"].append("unembed.weight"), r"edges\[\d+\] is not \[parameter, row"),
        (lambda c: c["biases"].append(["unembed.bias", "0", 1.0]), r"biases\[\d+\] is not \[parameter, channel"),
    ],
)
def test_a_damaged_circuit_is_refused_by_field(
    tmp_path: Path, found: tuple[Circuit, Transformer, Behaviour], edit: Any, message: str
) -> None:
    content = json.loads(json.dumps(found[0].as_json()))
    edit(content)
    path = tmp_path / "c.json"
    path.write_text(json.dumps(content))
    with pytest.raises(SparselitError, match=message):
        read_circuit(path)


@pytest.mark.parametrize("content", ["", "{", "[]", "null", '"text"', "[" * 100_000, "NaN", '{"format": 1e999}'])
def test_what_is_no_circuit_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "c.json"
    path.write_text(content)
    with pytest.raises(SparselitError, match=r"c\.json"):
        read_circuit(path)
    with pytest.raises(SparselitError, match="cannot read the circuit"):
        read_circuit(tmp_path / "missing.json")


def test_missing_broken_or_foreign_weights_are_refused(
    tmp_path: Path, found: tuple[Circuit, Transformer, Behaviour]
) -> None:
    unwritten, model, behaviour = found
    path = tmp_path / "c.json"
    circuit = write_circuit(path, unwritten, model, behaviour)
    weights = tmp_path / "c.safetensors"
    content = weights.read_bytes()
    for broken in (None, b"", content[: len(content) // 2], b"not tensors at all"):
        weights.unlink(missing_ok=True)
        if broken is not None:
            weights.write_bytes(broken)
        with pytest.raises(SparselitError, match=r"c\.safetensors"):
            read_model(path, circuit)
    write_circuit(path, circuit, randomised(d_model=4), behaviour)
    with pytest.raises(SparselitError, match=r"c\.safetensors"):
        read_model(path, circuit)


# -- the model's identity ----------------------------------------------------------------------------------------------


def test_the_hash_changes_with_every_name_dtype_shape_and_bit_and_with_nothing_else() -> None:
    tensors = {"a.weight": torch.arange(6.0).view(2, 3), "b": torch.zeros(2)}
    base = model_hash(tensors)
    assert model_hash(dict(reversed(tensors.items()))) == base
    assert model_hash({name: t.clone().requires_grad_() for name, t in tensors.items()}) == base
    assert model_hash({**tensors, "a.weight": tensors["a.weight"].t().contiguous().t()}) == base
    bit = tensors["a.weight"].clone()
    bit[1, 2] = torch.nextafter(bit[1, 2], torch.tensor(9.0))
    others = [
        {**tensors, "a.weight": bit},
        {**tensors, "a.weight": tensors["a.weight"].view(3, 2)},
        {**tensors, "a.weight": tensors["a.weight"].double()},
        {**tensors, "a.weight": -tensors["a.weight"]},
        {**tensors, "b": -torch.zeros(2)},
        {**tensors, "b": torch.zeros(2, dtype=torch.int32)},
        {**tensors, "b": torch.zeros(3)},
        {**tensors, "c": torch.zeros(0)},
        {"a.weight": tensors["b"], "b": tensors["a.weight"]},
        {"a.weights": tensors["a.weight"], "b": tensors["b"]},
    ]
    hashes = [model_hash(other) for other in others]
    assert len({base, *hashes}) == 1 + len(others)


def test_a_scalar_tensor_has_a_hash() -> None:
    assert model_hash({"a": torch.tensor(1.0)}) != model_hash({"a": torch.tensor(2.0)})


def test_the_hash_of_known_bytes_is_known() -> None:
    import hashlib

    expected = hashlib.sha256(b"w torch.float32 (2,)\n" + b"\x00\x00\x80\x3f\x00\x00\x00\x40").hexdigest()
    assert model_hash({"w": torch.tensor([1.0, 2.0])}) == expected
