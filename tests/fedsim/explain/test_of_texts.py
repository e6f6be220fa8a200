"""The cliff of a language model, before anything is trained."""

import json

import pytest

from fedsim.config import read
from fedsim.core.types import LocalTraining
from fedsim.explain import explain_texts
from tests.command import fedsim

GRADIENT = LocalTraining(lr=0.1, batch_size=8, upload="gradient")
SMALL = ["model=gpt", "model.width=32"]


def explained(count, *settings, local=GRADIENT):
    return explain_texts(read(None, [*SMALL, *settings]), 8, 64, local, num_examples=count)


@pytest.mark.worked
def test_below_the_cliff_whole_texts_are_recoverable_and_above_it_not():
    below, above = explained(3), explained(6)
    assert below.verdict == "whole texts are recoverable exactly"
    assert (below.limit, below.obstacles) == (30, ())
    assert below.prefixes == 3 * 7 + 1 <= below.singular
    assert "more than 30" in above.verdict
    assert above.prefixes > above.limit


@pytest.mark.worked
def test_obstacles_are_named():
    local = LocalTraining(lr=0.1, batch_size=2, epochs=2)
    hard = explained(3, "model.dropout=0.1", local=local)
    names = [it.name for it in hard.obstacles]
    assert names == ["dropout in training", "several local steps", "rounded weights"]
    assert "by pursuit" in hard.verdict


@pytest.mark.worked
def test_adam_is_an_obstacle(capsys):
    local = LocalTraining(lr=1e-3, batch_size=8, optimizer="adam")
    assert "Adam" in [it.name for it in explained(3, local=local).obstacles]
    command = ["explain", "gpt", "--input", "8", "--vocabulary", "64", "--set", "model.width=32"]
    shown = fedsim(capsys, *command, "--optimizer", "adamw", "--lr", "0.001")[1]
    shown = " ".join(shown.split())
    assert "at lr 0.001 of AdamW" in shown
    assert "gpt · AdamW (steps of lr 0.001): each entry of a step is divided" in shown
    code, _, error = fedsim(capsys, *command, "--optimizer", "lion")
    assert (code, "--optimizer: must be sgd, adam, adamw, got 'lion'" in error) == (2, True)
    code, _, error = fedsim(capsys, *command, "--optimizer", "adam", "--upload", "gradient")
    assert (code, "--optimizer: must be sgd with --upload gradient" in error) == (2, True)


@pytest.mark.worked
def test_the_command_prints_it(capsys):
    command = ["explain", "gpt", "--input", "8", "--vocabulary", "64", "--set", "model.width=32"]
    command += ["--upload", "gradient", "--batch-size", "3", "--json"]
    shown = json.loads(fedsim(capsys, *command)[1])["models"][0]
    assert shown["limit"] == 30
