import pytest
import torch

from fedsim.core.errors import BadRecording
from fedsim.core.group_writer import save_groups
from fedsim.core.types import LocalTraining
from strategies import Tape
from strategies.tape_views import observation, views

LOCAL = LocalTraining(lr=0.1, batch_size=4)
STATE = {"w": torch.ones(3)}


def uploads_of(folder, round_):
    return folder / "rounds" / f"{round_:04d}" / "uploads.safetensors"


def damaged(tmp_path, metadata=None, upload=None, round_=1):
    tape = Tape(tmp_path)
    tape.write_sent(1, STATE)
    tape.write_upload(1, "0", upload or STATE, 5, "weights")
    tape.finish(1)
    if metadata is not None:
        save_groups(uploads_of(tmp_path, 1), {"0": (STATE, metadata)}, {"round": round_})
    [view] = views(tmp_path, 1, LOCAL)
    return view


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"metadata": {}}, "must hold upload and round"),
        (
            {"metadata": {"num_examples": 5, "upload": "gradient"}},
            "must be the weights of client 0 in round 1, got the gradient",
        ),
        (
            {"metadata": {"num_examples": 5, "upload": "weights"}, "round_": 2},
            "got the weights of round 2",
        ),
        (
            {"metadata": {"num_examples": "many", "upload": "weights"}},
            "must hold upload and round, and num_examples",
        ),
        ({"upload": {"v": torch.ones(3)}}, "must have the names of sent.safetensors"),
    ],
)
def test_a_damaged_or_foreign_recording_is_named(tmp_path, change, reason):
    view = damaged(tmp_path, **change)
    with pytest.raises(BadRecording, match=r"uploads\.safetensors, 0: .*" + reason):
        view.latest.update  # noqa: B018


def test_the_delta_is_taken_in_the_uploads_precision(tmp_path):
    tape = Tape(tmp_path)
    sent = {
        "w": torch.full((3,), 1 / 3, dtype=torch.float64),
        "n": torch.tensor(2.5, dtype=torch.float64),
    }
    upload = {"w": torch.full((3,), 1 / 3), "n": torch.tensor(3)}
    tape.write_sent(1, sent)
    tape.write_upload(1, "0", upload, 5, "weights")
    tape.finish(1)
    [view] = views(tmp_path, 1, LOCAL)
    delta = view.latest.update.delta
    assert delta["w"].dtype == torch.float32
    assert torch.equal(delta["w"], torch.zeros(3))
    assert list(delta) == ["w", "n"]
    assert len(delta) == 2


def test_a_view_opens_only_what_is_asked_for(tmp_path):
    tape = Tape(tmp_path)
    for round_ in (1, 2):
        tape.write_sent(round_, STATE)
        tape.write_upload(round_, "0", STATE, 5, "weights")
        tape.finish(round_)
    uploads_of(tmp_path, 1).write_bytes(b"broken")
    [view] = views(tmp_path, 2, LOCAL)
    assert view.latest.update.round == 2
    with pytest.raises(BadRecording):
        view.observations[0]


@pytest.mark.parametrize("upload", ["gradient", "weights"])
def test_a_client_that_told_no_number_of_examples_is_seen_without_one(tmp_path, upload):
    tape, local = Tape(tmp_path), LocalTraining(lr=0.1, batch_size=4, upload=upload)
    tape.write_sent(1, STATE)
    tape.write_upload(1, "0", {"w": torch.full((3,), 3.0)}, None, upload)
    tape.finish(1)
    [view] = views(tmp_path, 1, local)
    assert view.latest.update.num_examples is None
    assert view.latest.update.delta["w"].tolist() == [3.0 if upload == "gradient" else 2.0] * 3


def three_clients(tmp_path):
    tape = Tape(tmp_path)
    for round_ in (1, 2):
        tape.write_sent(round_, STATE)
        for client in ("0", "1", "2")[: 1 + round_]:
            upload = {"w": STATE["w"] + round_ + float(client)}
            tape.write_upload(round_, client, upload, 5, "weights")
        tape.finish(round_)
    return list(views(tmp_path, 2, LOCAL))


def test_all_views_of_a_round_share_one_cohort_of_their_latest_observations(tmp_path):
    seen = three_clients(tmp_path)
    assert len({id(view.cohort) for view in seen}) == 1
    assert [view.cohort[place] is view.latest for place, view in enumerate(seen)] == [True] * 3
    assert [one.update.client for one in seen[0].cohort] == ["0", "1", "2"]
    assert {one.update.round for one in seen[0].cohort} == {2}
    assert [len(view.observations) for view in seen] == [2, 2, 1]
    assert [one.update.round for one in seen[1].observations] == [1, 2]
    assert seen[2].cohort[1].update.delta["w"].tolist() == [3.0] * 3


def test_a_cohort_holds_no_tensors(tmp_path):
    first, *_ = three_clients(tmp_path)
    assert first.cohort[2].update.client == "2"
    delta = first.cohort[0].update.delta
    assert delta["w"].data_ptr() != delta["w"].data_ptr()  # read anew each time


def test_a_damaged_file_of_uploads_is_named(tmp_path):
    three_clients(tmp_path)
    uploads_of(tmp_path, 2).write_bytes(b"x" * 40)
    with pytest.raises(BadRecording, match=r"uploads\.safetensors: must be as it was written"):
        list(views(tmp_path, 2, LOCAL))


def test_a_round_that_was_not_finished_is_not_there_and_the_next_leaves_nothing_of_it(tmp_path):
    tape = Tape(tmp_path)
    tape.begin(1, 2)
    tape.write_upload(1, "0", STATE, 5, "weights")
    assert list(views(tmp_path, 1, LOCAL)) == []
    tape.begin(2, 1)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


@pytest.mark.parametrize("client", ["a/b", "../x", "sent", "", "__metadata__", "é" * 99, "%2F"])
def test_a_clients_name_is_no_path(tmp_path, client):
    tape = Tape(tmp_path)
    tape.write_sent(1, STATE)
    for name in (client, "0"):
        tape.write_upload(1, name, STATE, 5, "weights")  # one more than was expected
    tape.finish(1)
    assert {view.latest.update.client for view in views(tmp_path, 1, LOCAL)} == {client, "0"}
    assert {path.name for path in (tmp_path / "rounds" / "0001").iterdir()} == {
        "files.json", "sent.safetensors", "uploads.safetensors"
    }  # fmt: skip


def test_a_round_that_is_not_recorded_has_no_views(tmp_path):
    three_clients(tmp_path)
    assert list(views(tmp_path, 3, LOCAL)) == []


def test_the_latest_round_is_read_without_looking_at_those_before_it(tmp_path, monkeypatch):
    tape = Tape(tmp_path)
    for number in (1, 2, 3):
        tape.write_sent(number, STATE)
        for client in ("0", "1")[: 1 if number == 2 else 2]:
            tape.write_upload(number, client, {"w": torch.full((3,), 1.0 + number)}, 5, "weights")
        tape.finish(number)
    with monkeypatch.context() as change:
        change.setattr("strategies.tape.recorded_rounds", None)
        first, second = views(tmp_path, 3, LOCAL)
        assert [float(view.latest.update.delta["w"][0]) for view in (first, second)] == [3.0, 3.0]
        assert first.cohort is second.cohort
        assert [len(view.cohort) for view in (first, second)] == [2, 2]
    assert [len(view.observations) for view in (first, second)] == [3, 2]
    assert [it.update.round for it in second.observations] == [1, 3]
    assert second.observations[-1] is second.observations[1] is second.latest
    assert [len(cohort) for cohort in second.cohorts] == [2, 2]
    assert second.until(0).latest.update.round == 1


def test_a_round_that_somebody_changed_after_it_was_finished_is_checked(tmp_path):
    tape, path = Tape(tmp_path), tmp_path / "rounds" / "0001" / "uploads.safetensors"
    tape.write_sent(1, {"w": torch.ones(3)})
    tape.write_upload(1, "0", {"w": torch.ones(3)}, 2, "weights")
    tape.finish(1)
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.with_name("other").write_bytes(data)
    path.with_name("other").replace(path)
    tape.trust(1)
    with pytest.raises(BadRecording, match="must be as it was written"):
        observation(tmp_path, 1, "0", LocalTraining(0.1, 4))
