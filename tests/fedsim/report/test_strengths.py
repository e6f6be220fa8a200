"""The picture of defenses in games: what is drawn where."""

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest

from fedsim.report import strengths
from fedsim.report.figures import STYLE
from fedsim.report.strengths import LINES, SCORE, against_strength


def table():
    """Two games, no defense, two strengths of one, and one without a strength."""
    settings = [("none", None, None), ("dp-sgd", "noise", 0.5), ("dp-sgd", "noise", 50.0)]
    rows = [
        {
            "setting": f"{defense}{value}", "defense": defense, "option": option, "strength": value,
            "game": game, "batch_size": 4, "rounds": 1, "adversary": adversary, "metric": metric,
            "value": 0.8 if metric == "auroc" else -2.0, "low": 0.7, "high": 0.9, "blind": 0.5,
            "records_ceiling": 1.0, "promised_ceiling": 0.9 if value else None,
            "imputation": 0.6 if metric == "auroc" else None, "task_accuracy": 0.8,
        }
        for defense, option, value in [*settings, ("sign", None, None)]
        for game in ("attribute", "membership")
        for adversary in (["static"] if defense == "none" else ["static", "adaptive"])
        for metric in ("auroc", "information")
    ]  # fmt: skip
    return pd.DataFrame(rows)


@pytest.fixture
def drawn(monkeypatch):
    figures = []
    monkeypatch.setattr(strengths, "svg", lambda fig: figures.append(fig) or "")
    with mpl.rc_context(STYLE):
        pictures = against_strength(table())
    assert len(pictures) == len(figures) == 1
    return np.array(figures[0].axes).reshape(5, 2)  # games × metrics, accuracy; defenses


def lines(axis, color):
    return [line for line in axis.lines if line.get_color() == color]


def test_strengths_are_numbers_and_joined(drawn):
    panel = drawn[0, 0]
    assert panel.get_title() == "dp-sgd"
    (adaptive, *_) = [it for it in lines(panel, SCORE) if it.get_linestyle() == "-"]
    assert list(adaptive.get_xdata()) == [0.5, 50.0]
    assert drawn[-1, 0].get_xscale() == "log"
    assert [tick.get_text() for tick in drawn[-1, 0].get_xticklabels()] == ["0.5", "50"]


def test_a_defense_without_a_strength_has_points_beside_each_other(drawn):
    panel = drawn[0, 1]
    places = sorted(float(it.get_xdata()[0]) for it in lines(panel, SCORE))
    assert len(places) == len(set(places)) == 2
    assert all(len(it.get_xdata()) == 1 for it in lines(panel, SCORE))
    assert not drawn[-1, 1].get_xticks().size


def test_ceilings_and_imputation_have_colours_of_their_own(drawn):
    colours = [color for color, _ in LINES.values()]
    assert len({SCORE, *colours}) == 4
    auroc, bits = drawn[0, 0], drawn[1, 0]
    assert all(lines(auroc, color) for color in colours)
    assert not lines(bits, LINES["imputation"][0])
    assert not lines(drawn[0, 1], LINES["promised_ceiling"][0])  # sign promises nothing


def test_negative_bits_do_not_squash_the_axis(drawn):
    bits = drawn[1, 0]
    low, high = bits.get_ylim()
    assert low == pytest.approx(-0.15)
    assert high == pytest.approx(1.05)
    below = [it for it in bits.lines if it.get_marker() == "v"]
    assert len(below) == 4  # two strengths, two adversaries
    assert all(low < it.get_ydata()[0] < 0 for it in below)


def test_nothing_is_drawn_of_settings_that_differ_in_more_than_strength():
    rows = table()
    assert against_strength(rows[rows["defense"] == "none"]) == []
    assert against_strength(pd.concat([rows, rows.assign(setting="other")])) == []
