import numpy as np
import pytest

from fedsim import data
from fedsim.core.errors import ConfigError
from fedsim.data.ids import read_ids
from tests.builders import small_config

NAMES = ["u#1", "#2", "anna b", "007", "7", "é"]


def dealt(path, *, clients=3):
    """Return the ids of each client's rows where a file says whose the toy's rows are."""
    toy = {"name": "tests.builders:toy_dataset", "limit": None}
    section = toy | {"partition": "user", "users": str(path)}
    federated = data.federate(
        small_config(data=section, federation={"clients": clients}, auxiliary={"share": 0.0})
    )
    ids = federated.dataset.columns[str(path)]
    return [set(ids[rows]) for rows in federated.clients], sum(map(len, federated.clients))


@pytest.mark.parametrize(
    "wrap",
    [
        lambda lines: "\n".join(lines).encode(),
        lambda lines: b"\xef\xbb\xbf" + "\r\n".join(lines).encode() + b"\r\n\r\n",
        lambda lines: "".join(f"  {line}\t\n" for line in lines).encode(),
    ],
    ids=["plain", "byte-order mark and Windows' ends", "spaces around"],
)
def test_ids_are_text_and_all_rows_of_a_user_are_with_one_client(wrap, tmp_path):
    path = tmp_path / "ids.txt"
    path.write_bytes(wrap([NAMES[row % 6] for row in range(60)]))
    assert read_ids(path, 60).tolist() == [NAMES[row % 6] for row in range(60)]
    clients, count = dealt(path)
    assert count == 60
    assert sorted(name for held in clients for name in held) == sorted(NAMES)


@pytest.mark.parametrize(
    "ids", [np.arange(60) % 6, np.array(NAMES * 10), np.array([b"a", b"b"] * 30)]
)
def test_ids_of_an_array_file_are_kept(ids, tmp_path):
    np.save(tmp_path / "ids.npy", ids)
    stored = read_ids(tmp_path / "ids.npy", 60)
    assert (
        stored.tolist() == np.char.decode(ids).tolist() if ids.dtype.kind == "S" else ids.tolist()
    )


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("".join(f"{row},u0\n" for row in range(60)), "without comma.* got '0,u0' in line 1"),
        ("".join(f"{row} u0\n" for row in range(60)), "more than one row.*60 different ids"),
        ("u0\n\n" * 30, "an id in every line.*none in line 2"),
        ("user\n" + "u0\nu1\n" * 30, "for each training row, got 61 ids .* for 60 rows"),
        ("", "an id in every line.*none in line 1"),
        ("a\0\na\n" * 30, "none of them null"),
        ("x" * 300 + "\n", "at most 256 characters"),
        (b"\xff\xfeu\x000\x00", "be UTF-8 text"),
    ],
)
def test_a_file_that_holds_other_things_than_ids_is_one_sentence(content, sentence, tmp_path):
    path = tmp_path / "ids.txt"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ConfigError, match=rf"^data.users: must .*{sentence}"):
        read_ids(path, 60)


@pytest.mark.parametrize(
    "array",
    [np.zeros((60, 2), int), np.zeros(60), np.array([None, 1] * 30), np.array(3)],
    ids=["two columns", "floats", "objects", "one number"],
)
def test_an_array_file_of_other_things_is_one_sentence(array, tmp_path):
    np.save(tmp_path / "ids.npy", array, allow_pickle=True)
    with pytest.raises(ConfigError, match="data.users: must hold one vector of whole numbers"):
        read_ids(tmp_path / "ids.npy", 60)


def test_an_array_file_that_is_none_is_one_sentence(tmp_path):
    (tmp_path / "ids.npy").write_bytes(b"\x93NUMPY\x01\x00junk")
    with pytest.raises(ConfigError, match="data.users: must hold one vector"):
        read_ids(tmp_path / "ids.npy", 60)


@pytest.mark.parametrize(
    "column",
    [np.array([np.nan, 1.0]), np.array(["a", None], object), np.array(["a", 1], object)],
    ids=["NaN", "None", "two kinds"],
)
def test_a_column_with_a_missing_id_is_one_sentence(column):
    from fedsim.data.ids import checked_ids

    with pytest.raises(ConfigError, match="data.users: must give an id to every row.*'who'"):
        checked_ids(column, "who")


@pytest.mark.parametrize("users", ["~nosuchuser/ids", "a\0b", "/"])
def test_a_path_that_is_none_is_one_sentence(users):
    section = {"name": "tests.builders:toy_dataset", "partition": "user", "users": users}
    with pytest.raises(ConfigError, match=r"data\.users: must be"):
        data.federate(small_config(data=section))
