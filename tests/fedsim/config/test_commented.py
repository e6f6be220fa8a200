import tomllib

import pytest

from fedsim import config as configs
from fedsim.config import Config, commented, keys


def test_the_default_config_reads_back_as_the_default_config():
    assert configs.parse(tomllib.loads(commented(Config()))) == Config()


@pytest.mark.parametrize(
    "settings",
    [
        ["federation.secure_aggregation=true"],
        ["federation.secure_aggregation.clip=2.0", "federation.secure_aggregation.neighbours=4"],
        ["federation.strategy=fedprox", 'federation.options={"proximal_mu" = 0.1}'],
        ["defense.clip.bound=1.0", "defense.gaussian.std=0.1", "attack=[{name='llg', every=2}]"],
        ["model.hidden=64", 'data."odd key"="a \\" quote\\tand 🙂"', "data.nested={a=[1,{b=2}]}"],
        ["game.value=3"],
        ["record.clients=['1','2']", "audit.values=['a','b']", "audit.column=sex"],
        ["foreign.num_classes=3", "foreign.input_shape=[3, 8, 8]"],
        ["versions.torch='2.8'"],
    ],
)
def test_a_resolved_config_reads_back_as_it_is(settings):
    config = configs.read(None, settings)
    assert configs.parse(tomllib.loads(commented(config))) == config


def test_every_key_has_a_comment_with_type_rule_and_default():
    text = commented(Config())
    assert (
        "# Number of clients drawn at random in each round; all if omitted.\n"
        "# (integer, at least 1; default: not set)\n"
        "# per_round =\n"
    ) in text
    assert "# (number, at least 0, below 1; default: 0.0)\nmomentum = 0.0\n" in text
    for key in keys():
        assert f"\n{key.name} =" in text or f"\n# {key.name} =" in text, key
