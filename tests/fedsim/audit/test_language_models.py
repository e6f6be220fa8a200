"""Audits of a model of next tokens: a record is a text, its targets its label."""

import pytest

from fedsim.audit.neighbours import craft
from fedsim.audit.setup import prepare
from fedsim.config import parse
from fedsim.core.errors import ConfigError
from tests.fedsim.audit.test_table import audited

DP_SGD = {"clip": 0.5, "noise": 2.0}


def on_texts(defense, **options):
    """Return the audit of a defense on a small language model."""
    return parse({
        "data": {"name": "messages", "limit": 300, "length": 8, "vocabulary": 260},
        "model": {"name": "gpt", "width": 8, "layers": 1, "heads": 2},
        "federation": {"strategy": "fedsgd"},
        "local": {"epochs": 1},
        "defense": [{"name": defense, **DP_SGD}],
        "audit": {
            "trials": 60, "steps": 5, "batch_size": 4, "candidates": 20, "canary": ["natural"],
            **options,
        },
    })  # fmt: skip


@pytest.mark.slow
def test_noise_that_skips_rows_of_unused_tokens_is_refuted(tmp_path):
    result = audited(on_texts("tests.planted:touched_rows", batch_size=1, trials=100), tmp_path)
    assert "clopper-pearson" in {row.method for row in result.refuted}


@pytest.mark.slow
@pytest.mark.parametrize("options", [{}, {"rounds": 2, "view": "last"}], ids=["rounds", "last"])
def test_noise_on_all_rows_stands(options, tmp_path):
    assert not audited(on_texts("dp-sgd", **options), tmp_path).refuted


def test_a_canary_is_a_text_with_a_target_at_each_position():
    setup = prepare(on_texts("dp-sgd"))
    canary = craft(setup, "natural")
    assert canary.inputs.shape == canary.label.shape == (8,)
    assert canary.apart == pytest.approx(0.5, rel=1e-3)  # the clip


def test_a_crafted_record_is_refused():
    with pytest.raises(ConfigError, match="'free' must go with records of numbers, got texts"):
        prepare(on_texts("dp-sgd", canary=["free"]))
