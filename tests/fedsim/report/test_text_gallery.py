import re

import pytest
import torch

from adversary.attack import Attack
from fedsim import api, data
from fedsim.core.errors import BadRecording
from fedsim.core.ground_truth import Texts
from fedsim.core.vocabulary import Vocabulary
from fedsim.report.data import RunData
from fedsim.report.text_gallery import _pieces, _ranked, checked_ids, text_galleries
from fedsim.report.visible import visible
from fedsim.run.run_folder import RunFolder
from tests.builders import small_config

HERE = "tests.fedsim.report.test_text_gallery"
SIZE = {"data": {"name": "messages", "limit": 24}, "model": {"name": "gpt", "width": 16}}


def cheat(view, auxiliary, generator):
    """Return the client's own texts, the last two tokens of each lost, which no attack could."""
    federated = data.federate(CONFIG)
    rows = federated.clients[int(view.latest.update.client)]
    return [ids[ids != 0][1:-2] for ids in federated.dataset.inputs[rows]]


def fail(view, auxiliary, generator):
    return torch.zeros(3)


cheating = Attack(name="cheating", family="text", infer=cheat)
failing = Attack(name="failing", family="text", infer=fail)
CONFIG = small_config(
    **SIZE,
    federation={"rounds": 2, "clients": 3},
    attack=[{"name": f"{HERE}:cheating"}, {"name": f"{HERE}:failing"}],
)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return api.run(CONFIG, tmp_path_factory.mktemp("texts") / "run")


def test_the_most_damaging_texts_stand_beside_the_originals_once_each(run):
    gallery, empty = text_galleries(RunData(RunFolder(run.path)))
    assert gallery.attack == f"{HERE}:cheating"
    assert 0 < len(gallery.texts) <= 10
    originals = ["".join(p.text for p in text.original) for text in gallery.texts]
    assert len(set(originals)) == len(originals)
    dataset = data.federate(CONFIG).dataset
    said = {visible(dataset.vocabulary.text(row)) for row in dataset.inputs.tolist()}
    assert set(originals) <= said
    for text, original in zip(gallery.texts, originals, strict=True):
        assert original.startswith("".join(p.text for p in text.recovered))
        assert all("miss" not in p.marks for p in text.recovered)
        assert "ROUGE-L" in text.caption
    assert not empty.texts
    assert "failed" in empty.sentences[1]


def test_the_page_blurs_the_texts_until_they_are_wanted(run):
    page = run.report.read_text()
    assert re.search(r"\.said \{[^}]*filter: blur\(", page)
    assert ".reveal:checked ~ .texts .said { filter: none }" in page
    assert page.count('<input type="checkbox" class="reveal" id="reveal-text-') == 1


def test_a_text_is_escaped_and_what_is_not_seen_stands_as_code_points():
    assert visible("a\u202eb\u200b\n\x1b[0mü😀") == "a⟨U+202E⟩b⟨U+200B⟩⟨U+000A⟩⟨U+001B⟩[0mü😀"
    from fedsim.report.templates import environment

    words = Vocabulary((b"", b"", b"", b"<script>alert(1)</script>", b" \xe2\x80\xae", b" ok"))
    texts = Texts(torch.tensor([[1, 3, 4, 5]]), words, frozenset(), frozenset({"ok"}))
    _, _, shown = _ranked("round 1 · <b>client</b>", [3, 4, 5], [3, 4, 5], [5], texts)
    section = environment().get_template("text_gallery")
    gallery = {"attack": "<i>x</i>", "values": [], "texts": [shown], "sentences": ["&"]}
    html = section.render(text_galleries=[gallery])
    assert "<script>" not in html
    assert "&lt;script&gt;" in html
    assert "<b>client" not in html
    assert "<i>x" not in html
    assert "⟨U+202E⟩" in html


def test_letters_of_several_tokens_are_whole_and_rare_words_are_marked():
    half = Vocabulary((b"", b"", b"", b"caf", b"\xc3", b"\xa9", b" bar"))
    texts = Texts(torch.zeros(1, 1), half, frozenset(), frozenset({"bar"}))
    pieces = _pieces([3, 4, 5, 6], texts, {0, 1, 2, 3}, "miss")
    assert [(piece.text, piece.marks) for piece in pieces] == [
        ("café", "hit rare"),
        (" bar", "hit"),
    ]


@pytest.mark.parametrize(
    "guess",
    [torch.zeros(3), torch.zeros(2, 2), torch.tensor([[6]]), torch.tensor([[-2]])],
    ids=["one dimension", "floats", "too large", "too small"],
)
def test_answers_that_are_no_texts_are_refused(guess):
    with pytest.raises(BadRecording, match="must be ids of the vocabulary"):
        checked_ids(guess, Vocabulary((b"",) * 6), "an attack")
