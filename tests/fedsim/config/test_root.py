import pytest

from fedsim import config as configs
from fedsim.config import Config
from fedsim.core.errors import ConfigError


@pytest.mark.parametrize(
    ("setting", "sentence"),
    [
        ("local.lrr=1", "local.lrr: must be a known key; did you mean 'lr'?"),
        ("lokal.lr=1", "lokal: must be a known key; did you mean 'local'?"),
        ("federation.clients=0", "federation.clients: .* greater than or equal to 1, got 0"),
        ("federation.clients=many", "federation.clients: .* valid integer.*, got 'many'"),
        ("federation.per_round=11", "federation.per_round: must be at most clients = 8, got 11"),
        ("local.lr=nan", "local.lr: .*, got nan"),
        ("local.optimizer=adam", "local.lr: must be set with optimizer = 'adam', whose steps"),
        ("local.optimizer=lion", "local.optimizer: .*'sgd', 'adam' or 'adamw', got 'lion'"),
        ("local.upload=gradient", "local.upload: must be 'gradient' exactly with .*'fedsgd'"),
        ("data.partition=user", "data.users: must name a column or a file"),
        ("record.clients=['12']", "record.clients: must be client numbers below 8, got '12'"),
        ("attack=llg,llg", "attack: each name must stand once"),
        ("seed", "--set: must be key=value, got 'seed'"),
        ("seed.x.y=1", "seed: .*"),
    ],
)
def test_a_wrong_setting_is_one_sentence(setting, sentence):
    with pytest.raises(ConfigError, match=f"^{sentence}") as error:
        configs.read(None, [setting])
    assert "\n" not in str(error.value)
    assert error.value.code == 2


def test_files_that_are_no_config(tmp_path):
    with pytest.raises(ConfigError, match="must be a readable file"):
        configs.read(tmp_path / "none.toml")
    (tmp_path / "bad.toml").write_text("seed = ")
    with pytest.raises(ConfigError, match="must be TOML"):
        configs.read(tmp_path / "bad.toml")


def test_settings_go_on_top_of_the_file(tmp_path):
    path = tmp_path / "run.toml"
    path.write_text('seed = 3\ndata = "mnist"\n[[defense]]\nname = "clip"\nbound = 2.0\n')
    config = configs.read(path, ["data.root=/data", "local.lr = 0.5", "attack=llg"])
    assert (config.seed, config.data.name, config.data.root) == (3, "mnist", "/data")
    assert config.local.lr == 0.5
    assert config.defense[0].options == {"bound": 2.0}
    assert [part.name for part in config.attack] == ["llg"]


def test_a_config_survives_toml_and_json(tmp_path):
    settings = ["local.epochs=3", "model.hidden=7", "attack=[{name='llg', scale='exact'}]"]
    config = configs.read(None, settings)
    (tmp_path / "again.toml").write_text(configs.dump(config))
    assert configs.read(tmp_path / "again.toml") == config
    assert configs.parse_json(configs.to_json(config)) == config


def test_the_upload_follows_from_the_strategy():
    assert Config().local_training().upload == "weights"
    config = configs.read(None, ["federation.strategy=fedsgd", "local.epochs=1"])
    assert config.local_training().upload == "gradient"
