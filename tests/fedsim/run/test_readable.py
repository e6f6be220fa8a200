import re
from math import prod

import pytest
import torch
from torch import nn

from fedsim import api
from fedsim.core.rng import generator
from fedsim.data import Dataset
from fedsim.models.gpt import gpt
from fedsim.run.prepare import prepare
from fedsim.run.readable import unreadable
from tests.adversary.text.cases import Adapter
from tests.builders import small_config

MODULE = "tests.fedsim.run.test_readable:"
WITHHELD = "update: must move the head, got zeros in the head alone"


class Scaled(nn.Module):
    def __init__(self, inputs: int, classes: int) -> None:
        super().__init__()
        self.head = nn.Linear(inputs, classes)

    def forward(self, x):
        return self.head(x.flatten(1)) / 8


def scaled(input_shape, num_classes):
    return Scaled(prod(input_shape), num_classes)


def without_bias(input_shape, num_classes):
    return nn.Sequential(nn.Flatten(), nn.Linear(prod(input_shape), num_classes, bias=False))


class Bag(nn.Module):
    """The mean of the embeddings of six ids."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(100, 8)
        self.head = nn.Linear(8, 2)

    def forward(self, ids):
        return self.head(self.embedding(ids).mean(1).relu())


def ids(root):
    labels = torch.arange(200) % 2
    words = torch.randint(0, 50, (200, 6), generator=generator(0, "ids")) + 50 * labels[:, None]
    return Dataset(
        inputs=words[:160].numpy(), labels=labels[:160].numpy().astype("uint8"),
        test_inputs=words[160:], test_labels=labels[160:], num_classes=2,
    )  # fmt: skip


def test_an_embedding_gets_ids_and_what_needs_a_gradient_of_inputs_refuses(tmp_path, undrawn):
    config = small_config(
        data={"name": MODULE + "ids"}, model={"name": MODULE + "Bag"},
        attack=["llg", "eb-gls", "dlg"], federation={"rounds": 1},
    )  # fmt: skip
    reason = "inputs: must be real numbers for a reconstruction, got whole numbers"
    assert unreadable(prepare(config)) == {reason: ("dlg",)}
    rows = api.run(config, tmp_path / "run").ledger().to_pylist()
    outcomes = {
        name: {r["outcome"] for r in rows if r["attack"] == name and r["client"]}
        for name in ("llg", "eb-gls", "dlg")
    }
    assert outcomes["dlg"] == {"refused"}
    assert outcomes["llg"] == outcomes["eb-gls"] == {"graded"}


def said_of(model):
    config = small_config(model={"name": model}, attack=["llg", "llbg", "eb-gls", "uniform"])
    return unreadable(prepare(config))


def test_what_cannot_be_read_is_named_before_training():
    (reason, titles), *rest = said_of(MODULE + "scaled").items()
    assert reason.startswith("model: must end in a linear layer of 10 outputs")
    assert titles == ("llg", "llbg")
    assert not rest
    assert said_of(MODULE + "without_bias") == {}
    assert said_of("mlp") == {}


@pytest.mark.parametrize("strategy", ["fedavg", "fedsgd"])
def test_a_head_that_a_defense_withholds_is_named_before_training(strategy, tmp_path, undrawn):
    config = small_config(
        model={"name": "mlp", "hidden": 16}, federation={"strategy": strategy, "rounds": 1},
        attack=["llg", "rlu", "eb-gls"], defense=[{"name": "freeze", "layers": ["head"]}],
        auxiliary={"knows_defense": False},
    )  # fmt: skip
    assert unreadable(prepare(config)) == {WITHHELD: ("llg", "rlu")}
    rows = api.run(config, tmp_path / "run").ledger().to_pylist()
    refused = {r["attack"]: r["reason"] for r in rows if r["outcome"] == "refused" and r["client"]}
    assert refused == {"llg": WITHHELD, "rlu": WITHHELD}


def frozen_first(input_shape, num_classes, *, bias: bool = True):
    """A first layer that is not trained, or has no bias."""
    first = nn.Linear(prod(input_shape), 8, bias=bias)
    first.requires_grad_(not bias)
    return nn.Sequential(nn.Flatten(), first, nn.ReLU(), nn.Linear(8, num_classes))


@pytest.mark.parametrize(
    ("model", "defense", "reason"),
    [
        ({"name": MODULE + "frozen_first"}, [], "1: must be trained as it is"),
        ({"name": MODULE + "frozen_first", "bias": False}, [], "1: must have a bias"),
        ({"name": "cnn"}, [], ""),
        ({"name": "mlp"}, [{"name": "freeze", "layers": ["1"]}], "update: a gradient must reach"),
        ({"name": "mlp"}, [{"name": "gaussian", "std": 1.0}], None),
    ],
)
def test_a_first_layer_that_gives_no_inputs_is_named_before_training(model, defense, reason):
    config = small_config(
        model=model, attack=["analytic", "llg"], defense=defense,
        auxiliary={"knows_defense": False},
    )  # fmt: skip
    reasons = {titles: reason for reason, titles in unreadable(prepare(config)).items()}
    assert (("analytic",) in reasons) == (reason is not None)
    if reason is not None:
        assert re.match(reason, reasons["analytic",])


def test_what_moves_no_parameter_is_read_by_none():
    config = small_config(
        model={"name": "mlp", "hidden": 16}, attack=["llg", "eb-gls", "uniform"],
        defense=[{"name": "freeze", "layers": ["1", "head"]}],
    )  # fmt: skip
    reasons = unreadable(prepare(config))
    assert "eb-gls" in reasons["update: must move a trained parameter, got none that it moves"]


def test_a_head_that_noise_or_pruning_only_hides_is_still_read():
    noise = {"name": "gaussian", "std": 1.0}
    for defense in ([noise], [{"name": "prune", "rate": 0.9}], [{"name": "sign"}]):
        config = small_config(model={"name": "mlp"}, attack=["llg", "eb-gls"], defense=defense)
        assert unreadable(prepare(config)) == {}


def with_adapters(input_shape, num_classes, vocabulary):
    model = gpt(input_shape, num_classes, vocabulary, width=32).requires_grad_(requires_grad=False)
    for block in model.get_submodule("blocks").children():
        attention = block.get_submodule("attention")
        query = attention.get_submodule("query")
        assert isinstance(query, nn.Linear)
        attention.add_module("query", Adapter(query, 8))
    return model


@pytest.mark.parametrize(("model", "refused"), [("gpt", False), ("with_adapters", True)])
def test_dager_says_beforehand_that_adapters_hold_no_whole_texts(model, refused):
    config = small_config(
        data={"name": "messages", "limit": 64, "tokeniser": "bytes"},
        model={"name": MODULE + model} if refused else {"name": model},
        attack=["dager", "span-pursuit"], federation={"rounds": 1},
    )  # fmt: skip
    reasons = unreadable(prepare(config))
    assert bool(reasons) == refused
    assert all("adapters, which span-pursuit reads" in reason for reason in reasons)
    assert set(reasons.values()) <= {("dager",)}


@pytest.mark.parametrize(
    ("limit", "model", "reason"),
    [
        (30, {"name": "gpt"}, "auxiliary.inputs: must hold at least 4 texts, got 3"),
        (40, {"name": "gpt"}, None),
        (40, {"name": MODULE + "with_adapters"}, "update: must hold a table of tokens, got none"),
    ],
)
def test_texts_that_cannot_be_rehearsed_are_named_before_training(limit, model, reason):
    config = small_config(
        data={"name": "messages", "limit": limit, "tokeniser": "bytes"}, model=model,
        attack=["token-rows", "row-bayes"], defense=[{"name": "gaussian", "std": 0.01}],
    )  # fmt: skip
    [(got, titles)] = unreadable(prepare(config)).items() if reason else [("", ())]
    assert got.startswith(reason or "")
    assert set(titles) == ({"token-rows (adaptive)", "row-bayes (adaptive)"} if reason else set())
    assert bool(unreadable(prepare(config))) == bool(reason)
