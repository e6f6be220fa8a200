import pytest

from fedsim import config as configs
from fedsim.config import parse_over
from fedsim.core.errors import ConfigError

DIGITS, BRACKETS = "9" * 5000, "[" * 3000


@pytest.mark.parametrize(
    ("setting", "sentence"),
    [
        (f"seed={DIGITS}", "--set seed: must be a value of TOML, got .*limit"),
        (f"seed=0x{'f' * 5000}", r"seed: must be smaller than 2\*\*63, got 20000 bits"),
        (f"data.alpha=1{'0' * 400}", r"data.alpha: must be smaller than 2\*\*63"),
        (f"seed={BRACKETS}", "--set seed: must be a value of TOML, got .*recursion"),
        (f"{'a.' * 3000}b=1", "must nest at most 16 deep"),
        ("local.lr=2020-01-01", "local.lr: must be text, a number, .* the date or time 2020-01-01"),
        ("data.scale=07:32:00", "data.scale: must be text, a number, .* 07:32:00"),
        ("federation.secure_aggregation.clip=inf", "aggregation.clip: must be finite, got inf"),
        ("federation.options.eta=nan", "federation.options.eta: must be finite, got nan"),
        ("data.root=a\0b", "data.root: must be UTF-8 of at most .* none of them null"),
        ("data.name=\udcff", "data.name: must be UTF-8"),
        (f"data.name={'x' * 20_000}", r"data.name: must be UTF-8.*\(20002 characters\)"),
        (f"data.{'k' * 101}=1", r"data: a key must be of at most 100 characters, got 'kkk"),
        ("local.a\nb\x1b[2J=1", r"local.a\\nb\\x1b\[2J: must be a known key"),
        ("seed=3\nlocal.lr=9", "seed: input should be a valid integer"),
        ("record.clients=['7', '10']", "record.clients: must be client numbers below 8, got '10'"),
        ("record.clients=['07']", "record.clients: must be client numbers below 8, got '07'"),
        ("engine.threads=100000", "engine.threads: input should be less than or equal to 256"),
    ],
    ids=lambda it: it[:30],
)
def test_a_value_that_no_key_takes_is_one_sentence(setting, sentence):
    with pytest.raises(ConfigError, match=sentence) as refused:
        configs.read(None, [setting])
    assert len(str(refused.value)) < 400
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("value", [3, ["llg", 3], [["llg"]], {"name": "llg"}])
def test_an_option_of_what_is_no_list_of_parts_is_one_sentence(value):
    with pytest.raises(ConfigError, match="--set attack.llg.x: 'attack' must be a list of names"):
        configs.read(None, values=[("attack", value), ("attack.llg.x", 1)])


def test_the_same_values_are_refused_in_files_json_and_grids(tmp_path):
    path = tmp_path / "run.toml"
    for text, sentence in (
        (f"seed = {DIGITS}", "must be TOML .exceeds the limit"),
        (f"seed = {BRACKETS}", "must be TOML .maximum recursion"),
        (f"seed = {'9' * 4000}", "seed: must be smaller"),
        ("a = 3 #" + "x" * 2**20, "must be at most 1048576 bytes"),
    ):
        path.write_text(text)
        with pytest.raises(ConfigError, match=sentence):
            configs.read(path)
    with pytest.raises(ConfigError, match="data.root: must be UTF-8"):
        configs.parse_json('{"data": {"root": "a\\u0000b"}}')
    with pytest.raises(ConfigError, match="--over seed.1: must be text, a number"):
        parse_over("seed=2020-01-01,2021-01-01")
    with pytest.raises(ConfigError, match="--over seed: must be a value of TOML"):
        parse_over(f"seed={BRACKETS}")


def test_a_byte_order_mark_is_no_part_of_a_config(tmp_path):
    path = tmp_path / "run.toml"
    path.write_bytes(b"\xef\xbb\xbfseed = 3\r\n")
    assert configs.read(path).seed == 3
    with pytest.raises(ConfigError, match="must be a path without null"):
        configs.read(tmp_path / "a\0b")


def test_a_huge_number_of_clients_costs_nothing():
    config = configs.read(None, ["federation.clients=4611686018427387904", "record.clients=['9']"])
    assert config.record.clients == ("9",)


def test_names_of_long_settings_fit_into_a_folder():
    path = "x" * 5000
    names = [cell.name for cell in configs.cells(None, overs=[("data.root", [path, path + "y"])])]
    assert len(set(names)) == 2
    assert all(len(name) < 100 for name in names)
