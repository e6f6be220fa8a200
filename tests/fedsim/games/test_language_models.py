"""Games on a model of next tokens: the record in question is a text."""

import pytest

from fedsim import config as configs
from fedsim.core.errors import ConfigError
from fedsim.games import table as games
from fedsim.games.board import prepare

SETTINGS = [
    "data=messages", "data.limit=300", "data.vocabulary=300", "auxiliary.overlap=0.2", "model=gpt",
    "model.width=8", "model.layers=1", "model.heads=2", "auxiliary.share=0.3",
    "game.play=membership,source", "game.trials=60", "game.shadows=80",
    "game.steps=2", "game.batch_size=1", "game.users=2",
]  # fmt: skip


def test_a_text_alone_in_its_batch_is_a_member_for_sure(tmp_path):
    rows = games.games(configs.cells(None, SETTINGS, []), tmp_path).to_pylist()
    aurocs = {row["game"]: row for row in rows if row["metric"] == "auroc"}
    assert aurocs.keys() == {"membership", "source"}
    for row in aurocs.values():
        assert row["value"] > 0.9
        assert row["blind"] == 0.5


@pytest.mark.parametrize(
    ("setting", "sentence"),
    [
        ("game.play=property", "game.column: must name the secret column"),
        ("game.knows_label=false", "game.knows_label: must be true where data.task = 'next'"),
        ("local.optimizer=adam", "local.optimizer: must be 'sgd' in a game"),
    ],
)
def test_what_texts_lack_is_refused(setting, sentence):
    more = ["local.lr=0.1", setting]
    with pytest.raises(ConfigError, match=f"^{sentence}"):
        prepare(configs.read(None, [*SETTINGS, *more]))


def test_games_of_classes_are_refused_by_name():
    users = ["game.play=user", "data.partition=user", "data.users=speaker", "game.column=speaker"]
    with pytest.raises(ConfigError, match=r"^game.play: must be .* where data.task = 'next', got"):
        prepare(configs.read(None, [*SETTINGS, *users]))
