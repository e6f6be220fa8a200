import os
import time

import pytest
import torch
from safetensors.torch import load_file

from fedsim.core import seals
from fedsim.core.errors import BadRecording, ConfigError
from fedsim.core.files import save_tensors
from fedsim.core.group_writer import GroupWriter, save_groups
from fedsim.core.groups import groups_in, state_of, was_written
from fedsim.core.truths import save_shared, shared_path

ODD = {
    "w": torch.arange(12.0).reshape(3, 4).t(),
    "b": torch.ones(3, dtype=torch.uint8),
    "s": torch.tensor(2.5, dtype=torch.float64),
    "e": torch.zeros(0, 3),
    "": torch.tensor([True]),
}
NAMES = ("1", "a/b", "../x", "__metadata__", "", "é" * 100, "%2F", '"')


@pytest.mark.parametrize("expected", [0, 1, len(NAMES), 100])
def test_groups_are_read_as_they_were_written_in_their_order(tmp_path, expected):
    path = tmp_path / "new" / "groups.safetensors"
    writer = GroupWriter(path, {"round": 3}, expected)
    written = {name: writer.add(name, ODD, {"place": k}) for k, name in enumerate(NAMES)}
    early = {name: torch.from_numpy(written["1"](name)) for name in ODD}
    assert not path.exists()
    writer.close()
    assert list(path.parent.iterdir()) == [path]
    groups = groups_in(path)
    assert list(groups) == list(NAMES)
    for k, (name, group) in enumerate(groups.items()):
        assert group.metadata == {"round": "3", "place": str(k)}
        assert list(group) == list(ODD)
        for key, value in ODD.items():
            late = torch.from_numpy(written[name](key))
            for read in (group[key], late, early[key]):
                assert (read.dtype, read.shape) == (value.dtype, value.shape)
                assert torch.equal(read, value)
    assert int.from_bytes(path.read_bytes()[:8], "little") % 8 == 0  # values are aligned
    assert len(load_file(path)) >= len(NAMES) * len(ODD)  # anybody reads it
    seals.check(path)


def test_equal_groups_are_equal_bytes_and_a_changed_file_is_read_again(tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    for path in (first, second):
        save_groups(path, {"a": (ODD, {"x": 1}), "b": ({}, {})}, {})
    assert first.read_bytes() == second.read_bytes()
    assert list(groups_in(first)) == ["a", "b"]
    assert groups_in(first) is groups_in(first)
    save_groups(first, {"c": ({"w": torch.ones(2)}, {})}, {})
    assert list(groups_in(first)) == ["c"]


def test_without_groups_there_is_no_file_and_a_discarded_one_leaves_nothing(tmp_path):
    GroupWriter(tmp_path / "none", {}).close()
    writer = GroupWriter(tmp_path / "discarded", {})
    writer.add("a", ODD, {})
    writer.discard()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "metadata",
    [
        {}, {"names": "[]", "groups": "["}, {"names": "[]", "groups": '{"a": [0, {}]}'},
        {"names": '[["w"]]', "groups": "[]"}, {"names": "[[1]]", "groups": '{"a": [0, {}]}'},
        {"names": '[["w"]]', "groups": '{"a": [0, {"x": 1}]}'},
        {"names": '[["w"]]', "groups": '{"a": 0}'}, {"names": "{}", "groups": "[" * 5000},
        {"names": '[["\\ud800"]]', "groups": "{}"},
        {"names": "[[]]", "groups": '{"\\ud800": [0, {}]}'},
        {"names": "[[]]", "groups": '{"a": [0, {"x": "\\udfff"}]}'},
    ],
)  # fmt: skip
def test_a_file_of_no_groups_is_refused(tmp_path, metadata):
    save_tensors(tmp_path / "x", ODD, metadata)
    with pytest.raises(BadRecording, match="x: metadata of a file of groups must hold groups"):
        list(groups_in(tmp_path / "x"))


def test_a_group_without_an_array_of_its_list_is_refused(tmp_path):
    save_tensors(tmp_path / "x", {}, {"names": '[["w"]]', "groups": '{"a": [0, {}]}'})
    group = groups_in(tmp_path / "x")["a"]
    with pytest.raises(BadRecording, match="x, a: must hold w, got none"):
        group["w"]
    with pytest.raises(KeyError):
        group["v"]
    with pytest.raises(BadRecording, match="y: the file is missing"):
        groups_in(tmp_path / "y")


def test_truths_of_one_round_that_come_in_two_parts_are_kept_together(tmp_path):
    labels = {"labels": torch.tensor([1, 2])}
    save_shared(tmp_path, 1, {"0": (labels, {"update_cosine": 0.5})})
    save_shared(tmp_path, 1, {"1": (labels, {})})
    truths = groups_in(shared_path(tmp_path, 1))
    assert {client: truth.facts for client, truth in truths.items()} == {
        "0": {"update_cosine": "0.5"}, "1": {}
    }  # fmt: skip


def test_a_file_that_was_just_written_is_not_read_to_check_it_until_it_is_changed(
    tmp_path, monkeypatch
):
    path, checked = tmp_path / "x", []
    save_groups(path, {"a": (ODD, {})}, {})
    was_written(path, state_of(path))
    monkeypatch.setattr(seals, "check", checked.append)
    assert groups_in(path)["a"]["w"].shape == (4, 3)
    assert not checked
    times = path.stat()
    time.sleep(0.02)  # a file system's clock ticks every ten milliseconds at most
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))  # as if nobody had changed it
    assert groups_in(path)["a"]["w"].shape == (4, 3)
    assert checked == [path]


def test_names_are_read_without_the_groups_which_are_checked_before_they_are_used(tmp_path):
    save_groups(tmp_path / "x", {"a": (ODD, {}), "b": (ODD, {})}, {})
    data = bytearray((tmp_path / "x").read_bytes())
    data[-1] ^= 1
    (tmp_path / "x").write_bytes(data)
    groups = groups_in(tmp_path / "x")
    assert (list(groups), "b" in groups, "c" in groups, len(groups)) == (["a", "b"], True, False, 2)
    for use in (lambda: groups["a"], lambda: dict(groups)):
        with pytest.raises(BadRecording, match="x: must be as it was written, .* other bytes"):
            use()


@pytest.mark.parametrize("expected", [3, 1])
def test_a_head_that_nobody_would_read_is_refused_by_the_first_group_or_when_all_are_there(
    tmp_path, expected, monkeypatch
):
    monkeypatch.setattr("fedsim.core.group_writer.MOST_HEAD", 2000)
    writer, shapes = GroupWriter(tmp_path / "x", {}, expected), {"w" * 700: torch.ones(2)}

    def write() -> None:
        for name in "abc":
            writer.add(name, shapes, {})
        writer.close()

    with pytest.raises(ConfigError, match="header of a safetensors .* for 3 clients in x; name"):
        write()
    assert len(writer._groups) == (0 if expected == 3 else 3)
    assert not list(tmp_path.iterdir())
