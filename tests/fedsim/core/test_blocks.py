import copy
import pickle

import pytest
import torch
from flwr.app import Array

from fedsim.core.blocks import PLAIN, Block
from fedsim.core.files import PIECE
from fedsim.core.group_writer import GroupWriter
from fedsim.core.groups import groups_in
from fedsim.core.wire import from_record, held_record, read_record, row_of
from tests.builders import same_params

LIKE = {
    "b": torch.zeros(3, dtype=torch.uint8),
    "w": torch.zeros(2, 5),
    "e": torch.zeros(0, 3),
    "n": torch.tensor(0),
    "s": torch.tensor(0.0, dtype=torch.float64),
    "t": torch.zeros(1, dtype=torch.bool),
}


def block(like=LIKE, count=7):
    filled = Block(like, count)
    for place, values in enumerate(filled.stacked.values()):
        ramp = torch.arange(values.numel()).reshape(values.shape) + place
        values.copy_(ramp % 2 if values.dtype == torch.bool else ramp)
    return filled


def test_all_rows_at_once_and_one_row_have_the_same_values():
    rows = block(dict.fromkeys(map(str, PLAIN), torch.zeros(0)) | LIKE)
    assert [*rows.stacked] == [*rows.row(0)]
    for k in range(rows.count):
        row = rows.row(k)
        assert len(row) == len(rows.stacked)
        for name, values in rows.stacked.items():
            assert torch.equal(row[name], values[k])
            assert (row[name].dtype, row[name].shape) == (values.dtype, values.shape[1:])
            assert row[name].is_contiguous()


@pytest.mark.twin
@pytest.mark.parametrize("order", [range(7), [0, 1, 3, 2, 4, 6, 5], [2, 3, 4]])
@pytest.mark.parametrize("wide", [1, PIECE // 16])
def test_rows_stand_in_a_file_as_other_groups_do(tmp_path, order, wide):
    rows = block({**LIKE, "w": torch.zeros(wide, 2)})
    states = {"rows": rows.row, "plain": lambda k: dict(rows.row(k))}
    for name, state in states.items():
        writer = GroupWriter(tmp_path / name, {"round": 1}, 3)
        written = {k: writer.add(str(k), state(k), {"k": k}) for k in order}
        writer.add("other", {"w": torch.ones(2)}, {})
        early = {name: torch.from_numpy(written[order[1]](name)) for name in LIKE}
        assert same_params(early, dict(rows.row(order[1])))
        writer.close()
        groups = groups_in(tmp_path / name)
        assert all(same_params(dict(groups[str(k)]), dict(rows.row(k))) for k in order)
    assert (tmp_path / "rows").read_bytes() == (tmp_path / "plain").read_bytes()


def test_a_file_of_rows_that_is_discarded_leaves_nothing(tmp_path):
    writer = GroupWriter(tmp_path / "x", {})
    writer.add("a", block().row(0), {})
    writer.discard()
    assert not list(tmp_path.iterdir())


def test_a_record_is_of_a_row_until_it_is_changed_or_copied():
    rows = block()
    record = held_record(rows.row(2))
    row = row_of(record)
    assert row is not None
    assert (row.block, row.place) == (rows, 2)
    for read in (from_record(record), read_record(record), dict(row)):
        assert same_params(read, dict(rows.row(2)))
    assert from_record(record)["w"].data_ptr() != rows.row(2)["w"].data_ptr()
    sent = pickle.dumps(record)
    assert len(sent) < len(pickle.dumps(held_record({**rows.row(2)}))) + 200  # without the others
    for twin in (pickle.loads(sent), copy.deepcopy(record)):
        assert row_of(twin) is None
        assert same_params(from_record(twin), dict(rows.row(2)))
    removed, renewed = held_record(rows.row(2)), held_record(rows.row(2))
    del removed["w"]
    renewed["w"] = Array(torch.ones(2, 5).numpy())
    assert row_of(removed) is row_of(renewed) is None
    assert same_params(read_record(renewed), {**rows.row(2), "w": torch.ones(2, 5)})
