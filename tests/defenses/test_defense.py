import pytest
import torch

import defenses
from defenses import Defense, clip, defend
from fedsim.config import Part
from fedsim.core.errors import ConfigError
from fedsim.core.rng import generator
from tests.builders import same_params, sticky

SENT = {"w": torch.tensor([1.0, 2.0]), "mean": torch.tensor([5.0]), "n": torch.tensor(3)}
TRAINED = {"w": torch.tensor([4.0, 6.0]), "mean": torch.tensor([7.0]), "n": torch.tensor(4)}


def test_defending_weights_moves_them_from_where_they_were_sent():
    upload, *_ = defend(
        clip(bound=2.5), TRAINED, SENT, ["w"], {}, generator=generator(0), upload="weights"
    )
    torch.testing.assert_close(upload["w"], torch.tensor([2.5, 4.0]))
    assert torch.equal(upload["mean"], TRAINED["mean"])
    assert torch.equal(upload["n"], TRAINED["n"])
    assert list(upload) == list(TRAINED)


def test_defending_a_gradient_looks_at_the_gradient_alone():
    upload, *_ = defend(
        clip(bound=1.0), TRAINED, SENT, ["w"], {}, generator=generator(0), upload="gradient"
    )
    torch.testing.assert_close(upload["w"], TRAINED["w"] / TRAINED["w"].norm())


def test_weights_sent_in_float64_do_not_widen_the_upload():
    sent = {**SENT, "w": SENT["w"].double()}
    upload, *_ = defend(clip(), TRAINED, sent, ["w"], {}, generator=generator(0), upload="weights")
    assert upload["w"].dtype == torch.float32


@pytest.mark.parametrize(
    "broken",
    [
        lambda p: {},
        lambda p: {n: v * float("nan") for n, v in p.items()},
        lambda p: {n: v[:1] for n, v in p.items()},
        lambda p: {**p, "more": torch.ones(1)},
    ],
)
def test_a_broken_defense_fails_closed(broken):
    bad = Defense(name="broken", apply=lambda p, s, g: (broken(p), s))
    with pytest.raises(ValueError, match="defense broken: "):
        defend(bad, TRAINED, SENT, ["w"], {}, generator=generator(0), upload="weights")


def test_state_goes_from_round_to_round():
    _, state, _ = defend(
        sticky(), TRAINED, SENT, ["w"], {}, generator=generator(0), upload="weights"
    )
    upload, *_ = defend(
        sticky(), TRAINED, SENT, ["w"], state, generator=generator(0), upload="weights"
    )
    torch.testing.assert_close(upload["w"], torch.tensor([1 + 0.75 * 3, 2 + 0.75 * 4]))
    assert not same_params(upload, TRAINED)


@pytest.mark.parametrize(
    ("part", "sentence"),
    [
        (Part(name="clp"), "defense.name: must be a known name, got 'clp'; did you mean 'clip'"),
        (Part.model_validate({"name": "clip", "bond": 1}), "defense.clip.bond: .*'bound'"),
        (Part.model_validate({"name": "clip", "bound": "x"}), "defense.clip.bound: .*number"),
        (Part.model_validate({"name": "clip", "bound": -1.0}), "defense.clip.bound: must be > 0"),
    ],
)
def test_a_wrong_option_is_one_sentence(part, sentence):
    with pytest.raises(ConfigError, match=sentence):
        defenses.build([part])
