"""Leakage against what a comparison's runs differ in."""

import math

import numpy as np
import pytest

from fedsim.report.curves import Curve, Series
from fedsim.report.differences import labels_of, settings_of, varied
from fedsim.report.settings import against_settings, lines
from fedsim.run.outcomes import Answers
from tests.builders import small_config


class Run:
    """A run as the pictures see it."""

    def __init__(self, config, values):
        self.folder = type("Folder", (), {"config": config})
        self.name = self.label = "run"
        self.curves = [curve(name, value) for name, value in values.items()]

    def interval(self, curve):
        return None

    @property
    def families(self):
        return list(dict.fromkeys(curve.family for curve in self.curves))

    def leaders(self, family=None):
        return [curve for curve in self.curves if family in {None, curve.family}]


def curve(name, value):
    one = np.array([value])
    series = Series(
        rounds=np.array([1]),
        mean=one,
        low=one,
        high=one,
        blind=one / 4,
        value=value,
        blind_value=value / 4,
    )
    return Curve(
        attack=name,
        adaptive=False,
        family="reconstruction",
        metric="psnr",
        main=series,
        skills=None,
        means={},
        milliseconds=1.0,
        answers=Answers(
            attack=name,
            adaptive=False,
            family="reconstruction",
            updates=1,
            failed=0,
            refused=0,
            reason="",
            reasons=0,
        ),
        order=0,
    )


def run(values, **local):
    return Run(small_config(local={"batch_size": 1, **local}), values)


def swept():
    rate = lambda epochs, lr: 60 + 20 * math.log10(lr) - 3 * epochs
    return [
        run({"joint": rate(epochs, lr)}, epochs=epochs, lr=lr)
        for epochs in (1, 2, 5)
        for lr in (0.01, 0.1, 1.0)
    ]


def lines_of(runs, key):
    settings = [settings_of(one.folder.config) for one in runs]
    others = [other for other in varied(settings) if other != key]
    return lines(runs, settings, key, others, "reconstruction")


def test_every_number_that_differs_has_a_picture_with_a_line_per_other_setting():
    pictures = against_settings(swept())
    assert [it.title for it in pictures] == [
        "Leakage against local.lr", "Leakage against local.epochs",
    ]  # fmt: skip
    assert "also differ in local.epochs" in pictures[0].caption
    for text in ("epochs 1", "epochs 5", "PSNR", " dB"):
        assert text in pictures[0].svg


def test_lines_hold_the_runs_own_means_in_the_order_of_the_setting():
    found = lines_of(swept()[::-1], "local.lr")
    assert [line.name for line in found] == ["epochs 5", "epochs 2", "epochs 1"]
    assert found[2].at == (0.01, 0.1, 1.0)
    assert found[2].values == pytest.approx((17, 37, 57))
    assert found[2].blinds == pytest.approx((17 / 4, 37 / 4, 57 / 4))


def test_seeds_are_averaged_and_many_other_settings_too():
    seeds = [Run(small_config(seed=s, local={"epochs": e}), {"joint": 10.0 * e + s})
             for s in (0, 4) for e in (1, 2)]  # fmt: skip
    (line,) = lines_of(seeds, "local.epochs")
    assert line.values == (12, 22)
    many = [run({"joint": 10.0 * e}, epochs=e, lr=0.1 * n) for e in (1, 2) for n in range(1, 9)]
    (line,) = lines_of(many, "local.epochs")
    assert (line.name, line.values) == ("joint", (10, 20))


def test_a_defenses_number_is_a_setting_and_its_name_none():
    runs = [
        Run(small_config(defense=[{"name": "gaussian", "std": std}]), {"joint": 30.0, "dlg": 20.0})
        for std in (0.1, 0.01)
    ]
    (picture,) = against_settings(runs)
    assert picture.title == "Leakage against gaussian.std"
    assert [line.name for line in lines_of(runs, "gaussian.std")] == ["joint", "dlg"]
    plain = Run(small_config(), {"joint": 40.0})
    (picture,) = against_settings([*runs, plain])  # without a defense there is no number
    assert "also differ" not in picture.caption


def test_runs_are_called_by_what_they_differ_in():
    prune = [{"name": "prune", "rate": 0.99}]
    both = [small_config(), small_config(defense=prune)]
    assert labels_of(both, ["a", "b"]) == ["no defense", "prune, rate 0.99"]
    seeds = [small_config(), small_config(seed=4), small_config(seed=4, defense=prune)]
    assert labels_of(seeds, ["a", "b", "c"]) == [
        "no defense, seed 0", "no defense, seed 4", "prune, rate 0.99",
    ]  # fmt: skip
    assert labels_of([small_config()] * 2, ["a", "b"]) == ["a", "b"]
    assert labels_of([*both, small_config(defense=prune)], ["a", "b", "c"]) == [
        "no defense", "prune, rate 0.99 (b)", "prune, rate 0.99 (c)",
    ]  # fmt: skip
    local = {"lr": 0.5, "epochs": 3, "batch_size": 2}
    other = small_config(local=local, federation={"rounds": 9})
    assert labels_of([small_config(), other], ["a", "b"])[1].endswith(", …")


def test_a_setting_over_decades_has_an_axis_of_decades_with_plain_numbers():
    (picture,) = against_settings([run({"joint": 30.0}, lr=lr) for lr in (0.001, 0.01, 0.1)])
    assert picture.figure.axes[-1].get_xscale() == "log"
    texts = [label.get_text() for label in picture.figure.axes[-1].get_xticklabels()]
    assert texts == ["0.001", "0.01", "0.1"]


def test_runs_that_differ_in_words_or_nothing_have_none():
    assert against_settings([run({"joint": 1.0}), run({"joint": 2.0})]) == []
    models = [Run(small_config(model=name), {"joint": 9.0}) for name in ("mlp", "cnn")]
    assert against_settings(models) == []
