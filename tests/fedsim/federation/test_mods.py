import numpy as np
import pytest
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp

from adversary.grading.truth import read_truth
from defenses import Defense, chain, clip, freeze, gaussian
from fedsim.federation.flower_private import enter_run
from fedsim.federation.mods import FAILED, as_mod, keep_truth
from tests.builders import sticky

SENT = {
    "w": np.array([1.0, 2.0], dtype=np.float32),
    "bn.running_mean": np.array([5.0], dtype=np.float32),
    "n": np.array(3),
}
MOVED = {
    "w": np.array([3.0, 4.0], dtype=np.float32),
    "bn.running_mean": np.array([2.0], dtype=np.float32),
    "n": np.array(1),
}


@pytest.fixture(autouse=True)
def _in_a_task():
    enter_run(1)


def record(arrays):
    return ArrayRecord({name: Array(np.asarray(value)) for name, value in arrays.items()})


def message(round_=1, *, type_="train", sent=SENT):
    content = {"arrays": record(sent)}
    if round_ is not None:
        content["config"] = ConfigRecord({"server-round": round_})
    return Message(RecordDict(content), dst_node_id=7, message_type=type_)


def context(node=7):
    return Context(run_id=1, node_id=node, node_config={}, state=RecordDict(), run_config={})


def app_with(*mods, answer=None):
    """Return an app whose clients move every weight by MOVED, or answer something else."""
    app = ClientApp(mods=list(mods))

    def handle(asked, context):
        if answer is not None:
            return answer(asked)
        sent = asked.content["arrays"]
        arrays = {name: sent[name].numpy() + MOVED[name] for name in sent}
        return Message(RecordDict({"mine": record(arrays)}), reply_to=asked)

    app.train()(handle)
    app.evaluate()(handle)
    return app


def uploaded(reply):
    return {name: value.numpy() for name, value in reply.content["mine"].items()}


def test_the_update_is_defended_and_the_rest_is_left_alone():
    reply = app_with(as_mod(clip(bound=2.5)))(message(), context())
    arrays = uploaded(reply)
    np.testing.assert_allclose(arrays["w"], [1 + 1.5, 2 + 2.0], rtol=1e-6)
    assert arrays["bn.running_mean"] == 7
    assert arrays["n"] == 4
    assert [(k, v.dtype) for k, v in arrays.items()] == [(k, v.dtype) for k, v in SENT.items()]


def test_batch_statistics_are_defended_where_asked_for():
    reply = app_with(as_mod(clip(bound=1e-9), buffers=True))(message(), context())
    np.testing.assert_allclose(uploaded(reply)["bn.running_mean"], SENT["bn.running_mean"])
    assert uploaded(reply)["n"] == 4  # an integer never is


def test_a_gradient_is_defended_as_it_is():
    reply = app_with(as_mod(clip(bound=1.0), upload="gradient"))(message(), context())
    assert np.linalg.norm(uploaded(reply)["w"]) == pytest.approx(1.0)


def test_stacked_mods_defend_from_the_last_to_the_first():
    double = Defense(name="double", apply=lambda p, s, g: ({n: 2 * v for n, v in p.items()}, s))
    last = app_with(as_mod(clip(bound=1.0)), as_mod(double))(message(), context())
    first = app_with(as_mod(double), as_mod(clip(bound=1.0)))(message(), context())
    assert np.linalg.norm(uploaded(last)["w"] - SENT["w"]) == pytest.approx(1.0, rel=1e-5)
    assert np.linalg.norm(uploaded(first)["w"] - SENT["w"]) == pytest.approx(2.0, rel=1e-5)


def test_each_of_several_mods_keeps_its_own_state_and_coins():
    both, here = app_with(as_mod(sticky()), as_mod(sticky(pull=0.0))), context()
    both(message(1), here)
    arrays = uploaded(both(message(2), here))
    np.testing.assert_allclose(arrays["w"], SENT["w"] + 0.75 * MOVED["w"])
    noise = app_with(as_mod(gaussian(std=1.0)), as_mod(gaussian(std=1.0)))
    one = app_with(as_mod(gaussian(std=1.0)))
    here = context()
    alone, together = (uploaded(app(message(), here))["w"] - SENT["w"] - MOVED["w"]
                       for app in (one, noise))  # fmt: skip
    assert not np.allclose(together, 2 * alone)


def test_coins_differ_between_nodes_and_rounds_and_come_from_no_global_stream():
    app = app_with(as_mod(gaussian(std=1.0)))
    here = context()
    torch.manual_seed(0)
    before = torch.get_rng_state()
    draws = [
        uploaded(app(asked, there))["w"].tolist()
        for asked, there in (
            (message(1), here), (message(1), here), (message(2), here), (message(1), context()),
            (message(None), here), (message(None), here),
        )
    ]  # fmt: skip
    # Nor do they repeat with the round's number, which the server chooses.
    assert len({str(draw) for draw in draws}) == 6
    assert torch.equal(torch.get_rng_state(), before)


def test_a_given_seed_repeats_an_experiment():
    app = app_with(as_mod(gaussian(std=1.0), seed=3))
    draws = [uploaded(app(message(), context(node)))["w"].tolist() for node in (1, 1, 2)]
    assert draws[0] == draws[1] != draws[2]


def test_other_messages_and_errors_pass():
    broken = Defense(name="broken", apply=lambda p, s, g: (_ for _ in ()).throw(RuntimeError("no")))
    assert not app_with(as_mod(broken))(message(type_="evaluate"), context()).has_error()
    theirs = app_with(as_mod(broken), answer=lambda m: Message(Error(9, "own"), reply_to=m))
    assert theirs(message(), context()).error.code == 9


@pytest.mark.parametrize(
    ("defense", "arrays", "reason"),
    [
        (Defense(name="d", apply=lambda p, s, g: ({}, s)), MOVED, "defense d: missing w"),
        (
            Defense(name="d", apply=lambda p, s, g: ({"w": p["w"][:1]}, s)),
            MOVED,
            "w: shape must be",
        ),
        (Defense(name="d", apply=lambda p, s, g: ({"w": p["w"] / 0}, s)), MOVED, "NaN or infinity"),
        (Defense(name="d", apply=lambda p, s, g: 1 / 0), MOVED, "division by zero"),
        (clip(), {**MOVED, "w": np.array([np.nan, 1], dtype=np.float32)}, "update: w: must be fin"),
        (clip(), {**MOVED, "w": MOVED["w"] * 1j}, "arrays: must be real, got w of torch.complex64"),
        (freeze(), MOVED, "layers: must name at least one, got none"),
        (clip(), {"v": MOVED["w"]}, "names and shapes received, got 'v'"),
        (clip(), {"n": np.array(1)}, "floating-point parameters, got none"),
    ],
)
def test_it_fails_closed(defense, arrays, reason):
    answer = lambda asked: Message(RecordDict({"mine": record(arrays)}), reply_to=asked)
    reply = app_with(as_mod(defense), answer=answer)(message(), context())
    assert reply.has_error()
    assert not reply.has_content()
    assert reply.error.code == FAILED
    assert reason in str(reply.error.reason)
    assert "upload withheld" in str(reply.error.reason)


@pytest.mark.parametrize("count", [0, 2])
def test_exactly_one_array_record_is_understood(count):
    records = {f"a{k}": record(MOVED) for k in range(count)}
    answer = lambda asked: Message(RecordDict(records), reply_to=asked)
    reply = app_with(as_mod(clip()), answer=answer)(message(), context())
    assert f"must be one ArrayRecord, got {count}" in str(reply.error.reason)


def test_a_defense_inside_training_is_refused():
    inside = chain(Defense(name="hook", gradient=lambda *_: []))
    with pytest.raises(ValueError, match="must be a defense on the update, got hook"):
        as_mod(inside)
    budget = chain(Defense(name="budget", spend=lambda state, local, count: state))
    with pytest.raises(ValueError, match="must be a defense on the update, got budget"):
        as_mod(budget)
    as_mod(chain(clip(), gaussian()))


def test_the_truth_is_kept_for_the_node_and_round_of_the_message(tmp_path):
    labels = torch.tensor([3, 3, 1])
    path = keep_truth(tmp_path, message(12), context(node=2**62 + 1), labels)
    assert path == tmp_path / "0012" / f"{2**62 + 1}.safetensors"
    assert torch.equal(read_truth(tmp_path, 12, str(2**62 + 1)).labels, labels)
    with pytest.raises(ValueError, match="message: must hold its server-round, got none"):
        keep_truth(tmp_path, message(None), context(), labels)
    for wrong, said in ((labels.double(), "torch.float64"), (labels[None], r"\(1, 3\)")):
        with pytest.raises(ValueError, match=f"labels: must be whole numbers, .*{said}"):
            keep_truth(tmp_path, message(1), context(), wrong)
