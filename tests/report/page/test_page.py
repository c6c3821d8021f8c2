"""The circuit page in a real browser without a network, and as a file: what it shows, keeps, and does not do."""

from __future__ import annotations

import hashlib
import json
import random
import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sparselit.circuits import Circuit, load
from sparselit.circuits.circuit import KeptEdge, ModelRecord, TaskRecord
from sparselit.cli import main
from sparselit.report.page import circuit_page, compare_page
from sparselit.report.page.html import inert
from tests.circuits.records import CONFIG, some_circuit
from tests.cli.test_show_verify import NAME, with_circuit
from tests.report.page.browser import PROGRAM, Browser
from tests.report.test_picture import circuit as pictured

STATIC = Path(__file__).parents[3] / "sparselit/report/page/static"
EVIL = [
    "</script><script>document.title='owned'</script>",
    "<img src=x onerror=\"document.title='owned'\">",
    "\x1b]0;owned\x07\x1b[2K",
    "\u202eabc\u2066\u2028\u2029",
    "x" * 10_000,
    "&lt;b&gt;",
    '"',
    "--><!--",
]
needs_browser = pytest.mark.skipif(
    not PROGRAM, reason="needs chromium on PATH; what the page holds is tested without it"
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, _one_thread: None) -> Path:
    folder = with_circuit(tmp_path_factory.mktemp("found"))
    (folder / "page.html").write_text(circuit_page(load(folder / NAME)), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    browser = Browser(tmp_path_factory.mktemp("profile"))
    browser.size(1200, 800)
    yield browser
    browser.close()


@pytest.fixture
def page(browser: Browser, folder: Path) -> Browser:
    browser.open(folder / "page.html")
    return browser


def evil() -> Circuit:
    task = TaskRecord(class_path="x.<b>Evil</b>", init_args={}, vocabulary=tuple(EVIL), strata=("<i>all</i>",))
    edges = [["embed.token.weight", i, i, 1.0] for i in range(8)] + [["unembed.weight", i, i, -1.0] for i in range(8)]
    return replace(pictured(edges), task=task)


def large(count: int = 2500) -> Circuit:
    config = {**CONFIG, "vocab_size": 8, "d_model": 64, "d_mlp": 256}
    shapes = {"layers.0.mlp.up": (256, 64), "layers.0.mlp.down": (64, 256)}
    every = [(f"{name}.weight", i, j) for name, (n, m) in shapes.items() for i in range(n) for j in range(m)]
    rng = random.Random(0)
    edges = tuple(KeptEdge(*place, rng.uniform(-2, 2)) for place in sorted(rng.sample(every, count)))
    return replace(some_circuit((), model=ModelRecord(weights="w", hash="", config=config)), edges=edges, biases=())


# -- the file ---------------------------------------------------------------------------------------------------------


def test_the_same_circuit_gives_the_same_bytes(folder: Path) -> None:
    assert circuit_page(load(folder / NAME)) == (folder / "page.html").read_text(encoding="utf-8")


def test_the_library_is_the_one_whose_hash_and_licences_are_recorded() -> None:
    record = json.loads((STATIC / "d3.json").read_text())
    assert hashlib.sha256((STATIC / "d3.js").read_bytes()).hexdigest() == record["bundle_sha256"]
    licences = (STATIC / "THIRD_PARTY_LICENSES.txt").read_text()
    assert all(f"{name} {row['version']}" in licences for name, row in record["packages"].items())
    assert "ISC" in licences


def test_the_page_names_no_address_and_allows_nothing_by_default(folder: Path) -> None:
    text = (folder / "page.html").read_text(encoding="utf-8")
    names = {
        f"http://www.w3.org/{name}"
        for name in ("1999/xhtml", "2000/svg", "1999/xlink", "XML/1998/namespace", "2000/xmlns/")
    }
    assert set(re.findall(r"https?://[^\s\"'`)<]+", text)) <= names
    assert "default-src 'none'" in text
    assert "unsafe-inline" not in text
    assert not re.search(r"@import|url\(|innerHTML|insertAdjacentHTML|document\.write", text.split("var d3=")[0])
    own = "".join(
        (STATIC / f"{name}.js").read_text()
        for name in ("data", "view", "draw", "canvas", "panel", "prompt", "tables", "main")
    )
    assert not re.search(r"innerHTML|outerHTML\s*=|insertAdjacentHTML|document\.write|eval\(", own)


@pytest.mark.parametrize("text", [*EVIL, "<!--<script>", "]]>", "\ud800"], ids=range(11))
def test_text_in_the_data_ends_nothing(text: str) -> None:
    written = inert({"text": text})
    assert json.loads(written) == {"text": text}
    assert written.isascii()
    assert not set(written) & set("<>&")


# -- in the browser ---------------------------------------------------------------------------------------------------


@needs_browser
def test_it_draws_without_a_request_or_a_complaint(page: Browser) -> None:
    assert page.requests() == []
    assert page.problems() == []
    shown = json.loads(page.js("document.getElementById('data').textContent"))["graph"]
    assert page.js("document.querySelectorAll('.node').length") == len(shown["nodes"])
    assert page.js("document.querySelectorAll('path.edge').length") >= len(shown["edges"])


def middle(page: Browser, query: str) -> tuple[float, float]:
    box = page.js(f"document.querySelector({query!r}).getBoundingClientRect().toJSON()")
    return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2


def enter(page: Browser, name: str, value: object, event: str) -> None:
    """Set the value of an input, as typing does."""
    page.js(f"document.getElementById({name!r}).value = {json.dumps(value)}")
    page.js(f"document.getElementById({name!r}).dispatchEvent(new Event({event!r}))")


@needs_browser
def test_hover_says_what_a_node_is_and_click_pins_it(page: Browser) -> None:
    name = page.js("[...document.querySelectorAll('.node')].find((n) => n.dataset.id.includes('attn.v')).dataset.id")
    at = middle(page, f'.node[data-id="{name}"]')
    page.mouse("moved", *at)
    page.wait("!document.getElementById('tip').hidden")
    assert name in page.js("document.getElementById('tip').textContent")
    page.click(*at)
    page.wait(f"location.hash.includes(encodeURIComponent({name!r}))")
    text = page.js("document.getElementById('panel').textContent")
    assert "reads" in text
    assert "largest" in text
    assert "report prompts" in text


@needs_browser
def test_the_fragment_restores_the_view_with_its_notes(page: Browser, folder: Path) -> None:
    page.key("Tab")
    first = page.js("document.querySelector('.node').dataset.id")
    page.click(*middle(page, f'.node[data-id="{first}"]'))
    page.wait("document.getElementById('label')")
    enter(page, "label", "mine <b>", "change")
    enter(page, "weight", 0.3, "input")
    page.wait("location.hash.includes('kept') && location.hash.includes('weight=0.3')")
    kept = page.js("location.hash.slice(1)")
    page.open(folder / "page.html", kept)
    assert page.js("document.getElementById('panel').querySelector('h2').textContent") == "mine <b>"
    assert float(page.js("document.getElementById('weight').value")) == 0.3


@needs_browser
def test_saving_keeps_the_labels_in_a_file_that_runs(page: Browser, tmp_path: Path) -> None:
    first = page.js("document.querySelector('.node').dataset.id")
    page.js("URL.createObjectURL = (blob) => { window.saved = blob.text(); return ''; }; 0")
    page.js("HTMLAnchorElement.prototype.click = () => 0; 0")
    page.click(*middle(page, f'.node[data-id="{first}"]'))
    page.wait("document.getElementById('label')")
    enter(page, "label", "kept </script>", "change")
    page.js("document.getElementById('save').click()")
    (tmp_path / "saved.html").write_text(page.js("window.saved"), encoding="utf-8")
    page.open(tmp_path / "saved.html", f"pin={first}")
    assert page.problems() == []
    assert page.js("document.getElementById('label').value") == "kept </script>"


@needs_browser
@pytest.mark.parametrize("tab", ["graph", "prompt", "evidence", "table"])
@pytest.mark.parametrize(("width", "dark"), [(1200, False), (320, False), (1200, True)])
def test_every_tab_fits_its_window_and_says_something(
    browser: Browser, folder: Path, tab: str, width: int, dark: bool
) -> None:
    browser.size(width, 800, dark)
    browser.open(folder / "page.html", f"tab={tab}")
    assert browser.js("document.documentElement.scrollWidth") <= width
    assert len(browser.js(f"document.getElementById('part-{tab}').textContent")) > 200
    assert browser.problems() == []
    browser.size(1200, 800)


@needs_browser
def test_evidence_is_green_only_where_a_number_was_compared(page: Browser, folder: Path) -> None:
    page.js("document.getElementById('tab-evidence').click()")
    shown = page.js("[...document.querySelectorAll('#part-evidence .badge')].map((b) => b.className + b.textContent)")
    rows = json.loads(page.js("document.getElementById('data').textContent"))["circuits"][0]["evidence"]["rows"]
    words = {"holds": "badge holds✓ holds", "fails": "badge fails✗ fails", "": "badge measured"}
    assert shown == [words[row["verdict"]] for row in rows]
    assert "What is not shown" in page.js("document.getElementById('part-evidence').textContent")


@needs_browser
def test_keys_move_between_nodes(page: Browser) -> None:
    page.js("document.querySelector('.chart').focus()")
    page.key("ArrowUp")
    page.wait("location.hash.includes('pin=')")
    assert page.js("document.getElementById('says').textContent")
    page.key("Escape")
    page.wait("!location.hash.includes('pin=')")


@needs_browser
def test_text_of_tokens_is_never_markup(browser: Browser, tmp_path: Path) -> None:
    (tmp_path / "evil.html").write_text(circuit_page(evil()), encoding="utf-8")
    for tab in ("graph", "evidence", "table"):
        browser.open(tmp_path / "evil.html", f"tab={tab}")
        assert browser.js("document.title") != "owned"
        assert browser.js("document.querySelectorAll('#app img, #app b:not(#tip b), #app i, #app script').length") == 0
        assert not re.search("[\x1b\u202e\u2066]", browser.js("document.getElementById('app').textContent"))
        assert browser.requests() == []
        assert browser.problems() == []
        assert browser.js("document.documentElement.scrollWidth") <= 1200


@needs_browser
def test_a_large_graph_is_drawn_on_a_canvas_whose_edges_are_found(browser: Browser, tmp_path: Path) -> None:
    (tmp_path / "large.html").write_text(circuit_page(large()), encoding="utf-8")
    browser.open(tmp_path / "large.html")
    x, y = middle(browser, "canvas.chart")
    found: list[Any] = []
    for i in range(-20, 20):
        browser.mouse("moved", x + 7 * i, y)
        found.append(
            browser.js("document.getElementById('tip').hidden ? '' : document.getElementById('tip').textContent")
        )
    assert any("weight" in text for text in found)


@needs_browser
def test_two_circuits_stand_side_by_side_and_what_they_share_is_marked(
    browser: Browser, folder: Path, tmp_path: Path
) -> None:
    one = load(folder / NAME)
    (tmp_path / "two.html").write_text(compare_page(one, one, ("<one>", "two")), encoding="utf-8")
    browser.open(tmp_path / "two.html")
    edges = len(one.circuit.edges)
    assert browser.js("document.querySelectorAll('.side').length") == 2
    assert browser.js("document.querySelectorAll('.side .halo').length") == 2 * edges
    assert browser.js("document.querySelectorAll('.node.only').length") == 0


@needs_browser
def test_it_prints_on_one_page(page: Browser) -> None:
    assert len(re.findall(rb"/Type\s*/Page\b", page.pdf())) == 1


@needs_browser
def test_the_command_writes_the_steps_of_the_current_folder_and_the_slider_moves_through_them(
    browser: Browser, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in (NAME, "step=9.json"):
        shutil.copy(folder / NAME, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    main(["view", "."])
    browser.open(tmp_path / "history.html")
    assert "step 9" in browser.js("document.getElementById('step').textContent")
    enter(browser, "frame", 0, "input")
    assert "step 7" in browser.js("document.getElementById('step').textContent")
    assert browser.problems() == []


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["a.json", "b.json", "c.json"], "one circuit, two"),
        (["missing.json"], "missing.json"),
        (["missing.json", "-o", "page.pdf"], ".html"),
        (["missing.json", "--task", "Quotes"], "--task"),
        ([".", "missing.json"], "shown alone"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_the_command_says_what_is_wrong(
    argv: list[str], says: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stopped:
        main(["view", *argv])
    error = capsys.readouterr().err
    assert stopped.value.code == 2
    assert says in error
    assert len(error.splitlines()) <= 2
