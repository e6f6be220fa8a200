"""The doors of configs, data sets and files of ids, before six thousand seeded inputs.

Each is refused in one sentence or accepted as it was given, and nothing is written.
"""

import math
import tomllib
from contextlib import contextmanager, suppress
from pathlib import Path

import jaxtyping
import numpy as np
import pandas as pd
import pytest
import tomli_w
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from fedsim import config as configs
from fedsim.core.errors import ConfigError
from fedsim.data import Attribute, Dataset
from fedsim.data.check import checked
from fedsim.data.ids import read_ids
from tests.builders import toy_dataset

pytestmark = pytest.mark.slow

MANY = {"deadline": None, "database": None, "suppress_health_check": list(HealthCheck)}
TOY = toy_dataset(Path())

KEYS_OF_CONFIG = configs.keys()
NAMES = [f"{key.section}.{key.name}" if key.section else key.name for key in KEYS_OF_CONFIG]
VALID = {
    **{"seed": 7, "federation.rounds": 3, "federation.clients": 4, "federation.per_round": 2},
    **{"data": "digits", "data.partition": "iid", "data.alpha": 0.1, "model": "mlp"},
    **{"model.hidden": 16, "local.lr": 0.1, "local.momentum": 0.5, "attack": ["llg", "idlg"]},
    **{"attack.llg.scale": "exact", "defense": [{"name": "clip", "bound": 1.0}]},
    **{"defense.gaussian.std": 0.1, "auxiliary.share": 0.2, "record.every": 2, "engine.threads": 2},
    **{"federation.secure_aggregation": True, "federation.secure_aggregation.clip": 2.0},
    **{"federation.strategy": "fedadam", "federation.options": {"eta": 0.1}, "game.value": 3},
}
TEXTS = st.one_of(
    st.text(max_size=12),
    st.sampled_from(
        ["", "nan", "~nosuchuser", "a\0b", "\udcff", "\ufeff", "é", "$x$", "../..", "#"]
    ),
    st.builds(str.__mul__, st.sampled_from(["x", "é", "["]), st.sampled_from([101, 20_000])),
)
NUMBERS = st.one_of(
    st.integers(-3, 300),
    st.sampled_from([2**31, 2**63 - 1, 2**63, -(2**63) - 1, 10**4000, True, False]),
    st.floats(),
)
PLAIN = st.one_of(NUMBERS, TEXTS, st.dates(), st.times(), st.datetimes())
VALUES = st.recursive(
    PLAIN,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=5,
)
KEYS = st.one_of(
    st.sampled_from([*NAMES, *VALID]),
    st.builds("{}.{}".format, st.sampled_from([*NAMES, *VALID]), TEXTS),
    TEXTS,
)
CHANGES = st.one_of(
    st.sampled_from(sorted(VALID)).map(lambda key: (key, VALID[key])), st.tuples(KEYS, VALUES)
)
SWITCHES = {
    True: {"true", "t", "yes", "y", "on", "1", "1.0"},
    False: {"false", "f", "no", "n", "off", "0", "0.0", "-0.0"},
}
RAW = st.one_of(
    st.builds(str.__mul__, st.sampled_from(["[", "{a=", "9", "0x", '"', "[[a]]\n"]), st.just(3000)),
    st.text(max_size=20),
    st.sampled_from(["2020-01-01", "07:32:00", "1_0", "+inf", "3\nlocal.lr = 9", "'''a\nb'''", ""]),
)


def one_sentence(error: ConfigError) -> None:
    assert str(error)
    assert str(error).isprintable()
    assert len(str(error)) < 1500


@contextmanager
def refused_or_accepted(counts):
    """Count how a door answers; anything else than an answer or one sentence is a failure."""
    try:
        yield
        counts["accepted"] += 1
    except ConfigError as error:
        one_sentence(error)
        counts["refused"] += 1


def same(given, stored) -> bool:
    """Return whether a stored value is the one that was given, in any way a key may be written."""
    if isinstance(given, dict) and isinstance(stored, dict):
        return all(same(value, stored.get(key)) for key, value in given.items())
    if isinstance(stored, dict):
        return given is True or stored.get("name") == given
    if isinstance(stored, list):
        if isinstance(given, str):
            given = [name.strip() for name in given.split(",") if name.strip()]
        given = given if isinstance(given, list) else [given]
        return len(given) == len(stored) and all(map(same, given, stored))
    if isinstance(stored, str) and not isinstance(given, str):
        return not isinstance(given, bool) and stored == str(given)
    if stored is None:
        return given is False
    if isinstance(stored, bool):
        return str(given).lower() in SWITCHES[stored]
    if isinstance(given, bool):
        return False
    return given == stored or (isinstance(stored, float) and float(given) == stored)


def at(tables, key):
    for name in key.split("."):
        if isinstance(tables, list):  # a part's option
            [tables] = [part for part in tables if part["name"] == name]
        else:
            tables = tables[name]
    return tables


def overlap(key: str, other: str) -> bool:
    return f"{key}.".startswith(f"{other}.") or f"{other}.".startswith(f"{key}.")


def assert_kept(config, last: dict) -> None:
    """Assert that every value that no later one could have changed is in the config."""
    stored = config.model_dump(mode="json")
    for place, (key, value) in enumerate(last.items()):
        if not any(overlap(key, other) for k, other in enumerate(last) if k != place):
            assert same(value, at(stored, key)), (key, value)


def assert_survives(config, path: Path) -> None:
    path.write_text(configs.dump(config), encoding="utf-8")
    assert configs.read(path) == config
    assert configs.parse_json(configs.to_json(config)) == config
    path.unlink()


def written(value) -> str | None:
    """Return a value as TOML, a table too in braces; None where it is none."""
    try:
        text = tomli_w.dumps({"value": [0, value]})  # beside a number no table has its own head
    except (ValueError, TypeError, RecursionError):
        return None
    return text.removeprefix("value = [\n    0,\n    ").removesuffix(",\n]\n")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty working directory that has to stay empty."""
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    assert list(tmp_path.iterdir()) == []


def test_three_thousand_configs(folder):
    counts = {"accepted": 0, "refused": 0}

    @settings(max_examples=1500, derandomize=True, **MANY)
    @given(st.lists(CHANGES, max_size=4))
    def by_settings(changes):
        texts = [(key, written(value)) for key, value in changes]
        assume(all(text is not None for _, text in texts))
        with refused_or_accepted(counts):
            config = configs.read(None, [f"{key}={text}" for key, text in texts])
            if not any("=" in key for key, _ in changes):  # else the key ends before that sign
                assert_kept(config, {key.strip(): value for key, value in changes})
            assert_survives(config, folder / "again.toml")

    @settings(max_examples=600, derandomize=True, **MANY)
    @given(st.lists(st.tuples(KEYS, RAW), max_size=2))
    def by_raw_settings(changes):
        with refused_or_accepted(counts):
            config = configs.read(None, [f"{key}={text}" for key, text in changes])
            assert_survives(config, folder / "again.toml")

    @settings(max_examples=900, derandomize=True, **MANY)
    @given(st.sets(st.sampled_from(sorted(VALID)), max_size=6), st.data())
    def by_file(names, data):
        chosen = [f"{name}={written(VALID[name])}" for name in sorted(names)]
        try:
            text = configs.dump(configs.read(None, chosen))
        except ConfigError:
            text = configs.dump(configs.Config())
        for _ in range(data.draw(st.integers(0, 4))):
            place = data.draw(st.integers(0, len(text)))
            cut = data.draw(st.integers(0, 3))
            text = text[:place] + data.draw(TEXTS | RAW) + text[place + cut :]
        content = text.encode("utf-8", "surrogatepass")
        content = data.draw(st.sampled_from([b"", b"\xef\xbb\xbf", b"\xff\xfe"])) + content
        path = folder / "run.toml"
        path.write_bytes(content)
        try:
            with refused_or_accepted(counts):
                config = configs.read(path)
                stored = config.model_dump(mode="json")
                for key, value in tomllib.loads(content.decode("utf-8-sig")).items():
                    assert same(value, stored[key]), key
                assert_survives(config, folder / "again.toml")
        finally:
            path.unlink()

    by_settings()
    by_raw_settings()
    by_file()
    print(f"configs: {counts}")
    assert min(counts.values()) > 300


FLOATS = st.one_of(
    st.floats(-2, 2),
    st.sampled_from([math.nan, math.inf, 1e300, 1e-300, 255.0, 0.0, 1.0]),
)
SHAPES = st.one_of(
    st.just((6, 4)), st.tuples(st.integers(0, 7), st.integers(0, 5)),
    st.sampled_from([(6,), (), (6, 1, 5, 5), (6, 5, 5, 3), (6, 3, 5, 5), (6, 2, 3), (5, 4)]),
)  # fmt: skip
FORMS = (
    lambda array: torch.from_numpy(array.copy()),
    lambda array: torch.from_numpy(array.astype(np.float16)),
    lambda array: torch.from_numpy(array.copy()).to(torch.bfloat16),
    lambda array: torch.from_numpy(array.astype(np.complex64)),
    lambda array: torch.from_numpy(array.copy()).to_sparse(),
    lambda array: array,
    lambda array: array.astype(">f4"),
    lambda array: array.astype(np.longdouble),
    lambda array: array.astype(object),
    lambda array: array.astype(str),
    np.asfortranarray,
    lambda array: np.nan_to_num(array, posinf=0).clip(0, 255).astype(np.uint8),
    lambda array: np.nan_to_num(array, posinf=0).clip(-9, 9).astype(np.int32),
    lambda array: array > 0,
    lambda array: array.tolist(),
    lambda array: pd.DataFrame(array) if array.ndim == 2 else pd.Series(array.reshape(-1)),
    lambda array: iter(array.reshape(-1)),
    lambda array: None,
)


@st.composite
def forms(draw, shape, elements):
    """An array of some shape in some form, and what it holds as float64."""
    shape = draw(shape)
    size = math.prod(shape)
    drawn = draw(st.lists(elements, min_size=min(size, 3), max_size=min(size, 3)))
    array = np.resize(np.array(drawn or [0.0], dtype=np.float64), shape)
    with np.errstate(all="ignore"):
        return draw(st.sampled_from(FORMS))(array)


def numbers(value) -> np.ndarray:
    """Return the numbers of any form as float64."""
    if isinstance(value, torch.Tensor):
        return value.double().numpy()
    return np.asarray(value, dtype=np.float64)


LABELS = st.one_of(st.integers(0, 2), st.integers(0, 2), st.integers(-1, 4)).map(float)
COLUMNS = st.dictionaries(
    st.sampled_from(["user", "age", 3]),
    st.sampled_from([np.arange(6), list("abcabc"), [1, "a", None] * 2, np.arange(5), "abcdef", 3]),
    max_size=2,
)
ATTRIBUTES = st.dictionaries(
    st.sampled_from(["sex", "race"]),
    st.builds(
        Attribute,
        st.sampled_from([(0, 1), (0, 9), ()]),
        st.sampled_from([("f", "m"), ("f",)]),
        st.sampled_from([torch.eye(2), np.eye(2), [[1, 0], [0, 1]], None, torch.eye(2) / 0]),
    )
    | st.none(),
    max_size=1,
)


@pytest.fixture
def untyped():
    """What is drawn is of wrong types on purpose: no checker of types stands before the door."""
    before = jaxtyping.config.jaxtyping_disable
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", before)


@pytest.mark.usefixtures("untyped")
def test_two_thousand_data_sets(folder):
    counts = {"accepted": 0, "refused": 0}
    usual = st.just(TOY.inputs[:6].numpy())

    @settings(max_examples=2000, derandomize=True, **MANY)
    @given(
        usual | forms(SHAPES, FLOATS),
        st.just([0, 1, 2, 0, 1, 2]) | forms(st.just((6,)) | SHAPES, LABELS),
        usual | forms(st.just((6, 4)), FLOATS),
        st.just([2] * 6) | forms(st.just((6,)), LABELS),
        st.just(3) | st.sampled_from([2, np.int64(3), 3.0, True, "3", None, -1]),
        st.tuples(st.just({}) | COLUMNS | st.none(), st.just({}) | ATTRIBUTES),
    )
    def data_sets(inputs, labels, test_inputs, test_labels, num_classes, of_rows):
        columns, attributes = of_rows
        dataset = Dataset(
            inputs=inputs,
            labels=labels,
            test_inputs=test_inputs,
            test_labels=test_labels,
            num_classes=num_classes,
            columns=columns,
            attributes=attributes,
        )
        with refused_or_accepted(counts):
            result = checked("fuzz", dataset)
            assert_as_given(result, dataset)

    data_sets()
    print(f"data sets: {counts}")
    assert min(counts.values()) > 20


def assert_as_given(result: Dataset, given: Dataset) -> None:
    for name in ("inputs", "test_inputs", "labels", "test_labels"):
        stored, values = getattr(result, name), numbers(getattr(given, name))
        assert stored.dtype in (
            (torch.float32, torch.int64) if "inputs" in name else (torch.int64,)
        )
        assert torch.isfinite(stored).all()
        with np.errstate(all="ignore"):
            expected = values.astype(np.float32) if stored.is_floating_point() else values
        assert np.array_equal(stored.numpy(), expected)
    for labels, inputs in (
        (result.labels, result.inputs), (result.test_labels, result.test_inputs),
    ):  # fmt: skip
        assert len(labels) == len(inputs) > 0
        assert 0 <= int(labels.min()) <= int(labels.max()) < result.num_classes
    assert result.inputs.shape[1:] == result.test_inputs.shape[1:]
    for name, column in result.columns.items():
        assert column.shape == (len(result.labels),)
        assert column.tolist() == np.asarray(given.columns[name]).tolist()


LINES = st.one_of(
    st.sampled_from(["a", "b", "#a", "007", "7", "a b", "é", "ｅ"]),
    st.text(max_size=6),
    st.sampled_from(["", "a,b", "a\tb", "a;b", "x" * 300, "\0", "\x85", "\u2028", " a "]),
)


def test_a_thousand_files_of_ids(folder):
    counts = {"accepted": 0, "refused": 0}
    path = folder / "ids.txt"

    @settings(max_examples=1000, derandomize=True, **MANY)
    @given(
        st.lists(st.sampled_from(["a", "b", "#c"]) | LINES, max_size=6),
        st.sampled_from(["\n", "\r\n", "\r"]),
        st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "latin-1"]),
        st.sampled_from([0, 0, 0, 1]),
    )
    def files(lines, end, encoding, more):
        assume(not any(set(line) & {"\n", "\r"} for line in lines))  # these are two lines
        path.write_bytes((end.join(lines) + end).encode(encoding, "replace"))
        try:
            with refused_or_accepted(counts):
                ids = read_ids(path, len(lines) + more)
                assert not more
                if encoding.startswith("utf-8"):
                    assert ids.tolist() == [line.strip() for line in lines]
        finally:
            with suppress(FileNotFoundError):
                path.unlink()

    files()
    print(f"files of ids: {counts}")
    assert min(counts.values()) > 100
