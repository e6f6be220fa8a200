"""Texts: token ids and targets, tokenisers that have seen public texts alone, and bad ones."""

import json
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fedsim import data
from fedsim.config import Data
from fedsim.core.errors import ConfigError
from fedsim.core.form import IGNORED
from fedsim.data import Dataset, Texts, bpe, tokeniser
from fedsim.data.coding import coded
from fedsim.run import overlap
from tests.builders import small_config
from tests.real_data import present

WORDS = ["see you at the station at nine", "see you at nine", "the station is closed, see you"]


def texts(train=WORDS, test=("see you",), **options) -> Texts:
    """A few texts."""
    return Texts(
        texts=train,
        labels=torch.arange(len(train)) % 2,
        test_texts=test,
        test_labels=torch.zeros(len(test), dtype=torch.int64),
        num_classes=2,
        **options,
    )


def loader(root):
    return texts([f"{a} {b} {c}" for a in "abcdefgh" for b in "ijkl" for c in "mnop"])


def repeated(root):
    return texts(["the same words", "others"] * 30 + [f"new {k}" for k in range(60)])


def surrogates(root):
    return texts(["fine", "\ud800"])


def numbers(root):
    return texts(["fine", 3])


def ids(**changes):
    vocabulary = tokeniser.learn("bytes", (), 0).vocabulary
    inputs = torch.tensor([[1, 5, 6, 0], [1, 7, 0, 0]])
    targets = torch.tensor([[5, 6, 2, IGNORED], [7, 2, IGNORED, IGNORED]])
    fields = {
        "inputs": inputs,
        "labels": torch.zeros(2, dtype=torch.int64),
        "test_inputs": inputs,
        "test_labels": torch.zeros(2, dtype=torch.int64),
        "num_classes": len(vocabulary),
        "vocabulary": vocabulary,
        "targets": targets,
        "test_targets": targets,
    }
    return Dataset(**{**fields, **changes})


ODD = {
    "outside": lambda _: ids(inputs=torch.tensor([[1, 5, 259, 0], [1, 7, 0, 0]])),
    "floats": lambda _: ids(inputs=torch.rand(2, 4), test_inputs=torch.rand(2, 4)),
    "inside": lambda _: ids(inputs=torch.tensor([[1, 0, 6, 0], [1, 7, 0, 0]])),
    "none": lambda _: ids(targets=torch.full((2, 4), IGNORED)),
    "wide": lambda _: ids(targets=torch.ones(2, 3, dtype=torch.int64)),
    "size": lambda _: ids(num_classes=7),
    "half": lambda _: ids(test_targets=None),
    "without": lambda _: ids(vocabulary=None),
}


def __getattr__(name):
    if name.startswith("odd_"):
        return ODD[name.removeprefix("odd_")]
    raise AttributeError(name)


@pytest.mark.worked
def test_inputs_leave_out_the_end_and_targets_the_begin():
    dataset = coded(texts(["ab", "abcdef"], length=4), tokeniser.learn("bytes", (), 0))
    a = 3 + ord("a")
    assert dataset.inputs.tolist() == [[1, a, a + 1, 0], [1, a, a + 1, a + 2]]
    assert dataset.targets.tolist() == [[a, a + 1, 2, IGNORED], [a, a + 1, a + 2, a + 3]]
    assert (dataset.form.kind, dataset.num_classes, len(dataset.vocabulary)) == (
        "language",
        259,
        259,
    )
    labelled = coded(texts(["ab", "cd"], task="label"), tokeniser.learn("bytes", (), 0))
    assert (labelled.form.kind, labelled.num_classes, labelled.targets) == ("tokens", 2, None)
    assert torch.equal(labelled.y, labelled.labels)


@pytest.mark.theorem
@given(st.lists(st.text(st.characters(exclude_categories=["Cs"])), min_size=1), st.text("ab \n"))
def test_byte_pairs_give_every_text_back(learned, other):
    made = tokeniser.learn("bpe", learned, 300)
    for text in [*learned, other]:
        assert made.vocabulary.text(made.encode(text)) == text


@pytest.mark.worked
def test_the_most_frequent_pair_is_merged_first_and_ties_go_to_the_smaller_ids():
    assert bpe.learn(["abab", "ab cd", "cd"], 0, 9) == [(97, 98), (99, 100), (256, 256)][:2]
    assert bpe.merged([1, 1, 1], (1, 1), 9) == [9, 1]
    assert bpe.learn(["abab abab"], 0, 9) == [(97, 98), (256, 256)]


@pytest.mark.twin
def test_merges_are_those_of_counting_all_pairs_again():
    stream = np.random.default_rng(5)
    lines = ["".join(stream.choice(list("abc "), size=12)) for _ in range(40)]
    words = [list(part.encode()) for line in lines for part in bpe.parts_of(line)]
    merges = []
    for new in range(256, 280):
        counts = {}
        for word in words:
            for pair in pairwise(word):
                counts[pair] = counts.get(pair, 0) + 1
        best = min(counts, key=lambda pair: (-counts[pair], pair))
        if counts[best] < 2:
            break
        merges.append(best)
        words = [bpe.merged(word, best, new) for word in words]
    assert bpe.learn(lines, 0, 24) == merges


def test_words_that_are_not_known_become_one_token():
    made = tokeniser.learn("words", ["to be or not to be"], 8)
    assert made.vocabulary.text(made.encode("To BE, or so")) == " to be \ufffd or \ufffd"
    assert len(made.vocabulary) == 8


@pytest.mark.parametrize("kind", tokeniser.KINDS)
def test_a_tokeniser_comes_back_from_its_file(kind, tmp_path):
    made = tokeniser.learn(kind, WORDS, 300)
    tokeniser.write(made, tmp_path / tokeniser.FILE)
    again = tokeniser.tokeniser_of(str(tmp_path / tokeniser.FILE), (), 0)
    assert again == made
    assert again.encode(WORDS[0]) == made.encode(WORDS[0])


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "{}",
        '{"kind": ["bpe"]}',
        '{"kind": "bpe", "merges": [[3, 300]]}',
        '{"kind": "bpe", "merges": [[5, 5], [5, 5]]}',
        '{"kind": "words", "words": ["a", "a"]}',
        json.dumps({"kind": "bpe", "merges": [[258 + max(0, k), 258 + k] for k in range(60)]}),
    ],
)
def test_a_file_that_holds_no_tokeniser_is_refused(content, tmp_path):
    (tmp_path / "x.json").write_text(content)
    with pytest.raises(ConfigError, match="data.tokeniser: must be a tokeniser.json of a run, got"):
        tokeniser.tokeniser_of(str(tmp_path / "x.json"), (), 0)


def test_the_tokeniser_has_seen_the_adversarys_share_alone():
    config = small_config(data="messages")
    federated = data.federate(config)
    public = [federated.dataset.inputs[row] for row in federated.auxiliary]
    decoded = [federated.dataset.vocabulary.text(row) for row in public]
    whole = data.load(config.data, config.seed)
    shared = [whole.texts[row] for row in federated.auxiliary.tolist()]
    assert federated.tokeniser == tokeniser.learn("bpe", shared, 1024)
    assert all(text.startswith(part) for text, part in zip(shared, decoded, strict=True))


def test_without_public_texts_only_bytes_are_left():
    alone = Data(name=f"{__name__}:loader")
    with pytest.raises(ConfigError, match="data.tokeniser: must be 'bytes' or a file where there"):
        data.alone(alone, 0)
    section = Data(name="messages", tokeniser="bytes")
    assert len(data.alone(section, 0).dataset.vocabulary) == 259


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"length": 1}, "data.length: must be at least 2 tokens, got 1"),
        ({"vocabulary": 200}, "data.vocabulary: must be at least 260 with 'bpe', got 200"),
        ({"tokeniser": "sentencepiece"}, "data.tokeniser: must be bpe, bytes, words or a run's"),
        ({"task": "mask"}, "data.task: .*'next' or 'label'"),
    ],
)
def test_options_out_of_range_are_refused(options, sentence):
    with pytest.raises(ConfigError, match=sentence):
        data.federate(small_config(data={"name": "messages", **options}))


@pytest.mark.untyped  # what types refuse, too
@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        (
            "surrogates",
            r"texts: must be a list of texts that UTF-8 can hold, got '\\ud800' in row 1",
        ),
        ("numbers", "texts: .*got int in row 1"),
        (
            "odd_outside",
            "inputs: must be ids of the vocabulary .* got 0 to 259 with a vocabulary of",
        ),
        ("odd_floats", "inputs: must be ids of the vocabulary .* of torch.float32"),
        ("odd_inside", "inputs: must have pads on the right .* got one before a token in row 0"),
        ("odd_none", "targets: must be an id .* got none in row 0"),
        ("odd_wide", r"targets: must be an id .* got \(2, 3\) beside inputs of \(2, 4\)"),
        ("odd_size", "num_classes: must be the size of the vocabulary .* got 7 beside 259 ids"),
        ("odd_half", "targets: must be there for training and test rows"),
        ("odd_without", "targets: must be there for training and test rows, with a vocabulary"),
    ],
)
def test_bad_texts_and_ids_are_refused_in_one_sentence(name, sentence):
    with pytest.raises(ConfigError, match=f"data.name: '{__name__}:{name}' gives {sentence}"):
        data.load(Data(name=f"{__name__}:{name}"), seed=0)


def test_texts_that_the_adversary_and_clients_share_stop_the_run():
    config = small_config(data=f"{__name__}:repeated")
    with pytest.raises(ConfigError, match="auxiliary: must hold other texts than the clients, got"):
        overlap.check(data.federate(config), allowed=0.01, seed=0)
    config = small_config(data=f"{__name__}:loader")
    overlap.check(data.federate(config), allowed=0.01, seed=0)


def test_everyday_messages_are_the_same_each_time_and_each_is_sent_once():
    first, again = (data.load(Data(name="messages"), 0) for _ in range(2))
    assert first.texts == again.texts
    every = [*first.texts, *first.test_texts]
    assert len(every) == len(set(every)) == 2400
    assert len(set(first.columns["speaker"])) == 24
    assert set(first.labels.tolist()) == set(range(6))
    assert not any("{" in text for text in every)


@pytest.mark.parametrize(
    ("name", "rows", "users"),
    [
        ("sms-spam", (4128, 1032), 0),
        ("banking77", (9999, 3072), 0),
        ("paint-girl", (1291, 161), 18),
    ],
)
def test_published_texts_are_read_once_each(name, rows, users):
    present("text")
    loaded = data.load(Data(name=name), 0)
    assert (len(loaded.texts), len(loaded.test_texts)) == rows
    assert len({*loaded.texts, *loaded.test_texts}) == sum(rows)
    assert sum(len(set(column)) for column in loaded.columns.values()) == users


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("", "the first line"),
        ("split\tlabel\ttext\ntrain\tham", "line 2: must hold one value per column"),
        ("split\tlabel\ttext\nvalid\tham\thi", "must be train or test, got 'valid'"),
        ("split\tlabel\ttext\ntrain\tham\thi", "must hold training and test rows, got train"),
        ("\xff", "must be UTF-8"),
    ],
)
def test_a_damaged_file_is_refused_in_one_sentence(content, sentence, tmp_path):
    (tmp_path / "sms_spam.tsv").write_bytes(content.encode("latin-1"))
    with pytest.raises(ConfigError, match=r"data.root: 'sms-spam' must be readable in .*put sms_"):
        data.load(Data(name="sms-spam", root=str(tmp_path)), 0)
