"""Rounds with hostile clients: that of the honest ones is committed, or a sentence says why not."""

import random
import warnings

import numpy as np
import pytest
import torch
from flwr.app import ConfigRecord, Message

from fedsim.core.errors import RunStopped
from fedsim.core.rng import derive
from fedsim.core.wire import from_record, to_record
from fedsim.federation import inline
from fedsim.federation.grid import SimulationGrid
from strategies import STRATEGIES, Fence, Recording, build, sampling, state
from strategies.tape_views import views
from tests.builders import small_config
from tests.strategies import hostile

CLIENTS, HOSTILE = 7, (1, 4)
MODEL = {"w": torch.ones(3, 2), "b": torch.zeros(3), "n": torch.tensor(3)}
NEEDS_MORE = ("bulyan",)  # 4 attackers + 3: fewer replies than that are too few for it


def rounds_of(name, seed, count, path, monkeypatch):
    """Run rounds; return how many ended in a sentence, and how many hostile replies passed."""
    draw = random.Random(derive(seed, "hostile", name))
    config = small_config(federation={"clients": CLIENTS, "strategy": name, "options": {}})
    strategy = build(config.federation, lr=0.1, buffers=["n"])
    local = config.local_training()
    recording = Recording(strategy, path, client_of=lambda node: str(node - 2), upload=local.upload)
    fence = Fence(recording, upload=local.upload)
    grid = SimulationGrid(CLIENTS, inline.inline, path / "truth")
    like = {key: value.numpy() for key, value in MODEL.items()}
    sentences = passed = 0
    params = dict(MODEL)

    for round_ in range(1, count + 1):
        apps = {client: hostile.answer(draw, like) for client in HOSTILE}

        def app(message, context, apps=apps):
            client = message.metadata.dst_node_id - 2
            if client in apps:
                return apps[client](message, context)
            return Message(hostile.honest(like, client), reply_to=message)

        monkeypatch.setattr(inline, "app", app)
        try:
            with sampling(seed, round_):
                messages = fence.configure_train(round_, to_record(params), ConfigRecord(), grid)
            arrays, _ = fence.aggregate_train(round_, grid.send_and_receive(messages))
        except RunStopped as error:
            check_sentence(str(error))
            sentences += 1
            continue
        honest = {str(k) for k in range(CLIENTS) if k not in HOSTILE}
        assert honest <= set(recording.norms)
        for client, reason in recording.failures:
            assert int(client) in HOSTILE
            assert 0 < len(reason) <= 300
            assert reason.isprintable()
            reason.encode()
        passed += len(recording.norms) - len(honest)
        assert all(np.isfinite(norm) for norm in recording.norms.values())
        aggregate = from_record(arrays)
        assert list(aggregate) == list(MODEL)
        assert all(torch.isfinite(value).all() for value in aggregate.values())
        state.capture(strategy)
        assert grid.client_states() == {}
        assert recording.unrecorded == []
    for view in views(path, count, local):
        assert all(torch.isfinite(value).all() for value in view.latest.update.delta.values())
    return sentences, passed


def check_sentence(text):
    assert text.isprintable()
    assert len(text) < 500
    text.encode()


def check(name, seed, count, path, monkeypatch):
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)  # of NumPy: an overflow inside a strategy
        sentences, passed = rounds_of(name, seed, count, path, monkeypatch)
    assert sentences == 0 or name in NEEDS_MORE
    assert passed > 0


def test_hostile_clients_are_rows(tmp_path, monkeypatch):
    check("fedavg", 0, 40, tmp_path, monkeypatch)


@pytest.mark.slow
@pytest.mark.parametrize("name", STRATEGIES)
def test_a_thousand_hostile_replies(name, tmp_path, monkeypatch):
    """84 rounds of 2 hostile clients, for each of 12 strategies: 2,016 replies."""
    monkeypatch.setattr("gc.collect", lambda *_: 0)
    check(name, 1, 84, tmp_path, monkeypatch)


def outcome(strategy, contents, round_):
    """Return what a strategy makes of contents: values and metrics, or what it raises."""
    grid = SimulationGrid(CLIENTS, None, "unused")
    with sampling(0, round_):
        messages = list(strategy.configure_train(round_, to_record(MODEL), ConfigRecord(), grid))
    replies = [Message(contents[m.metadata.dst_node_id - 2], reply_to=m) for m in messages]
    try:
        arrays, metrics = strategy.aggregate_train(round_, replies)
        values = {name: array.numpy() for name, array in (arrays or {}).items()}
        # Not the bytes: those between 80-bit numbers are whatever was there.
        shown = {name: (value.dtype, value.shape, value.tolist()) for name, value in values.items()}
        return repr(shown), repr(dict(metrics or {}))
    except Exception as error:
        return type(error), str(error)


def one_hostile(like, name, round_):
    draw = random.Random(derive(2, "hostile", name, round_))
    contents = [hostile.honest(like, client) for client in range(CLIENTS)]
    contents[draw.randrange(CLIENTS)] = hostile.content(draw, like)
    return contents


@pytest.mark.parametrize("name", ["fedavg", "fedadam", "krum"])
def test_a_recorder_alone_is_transparent_to_whatever_comes(name, tmp_path, monkeypatch):
    """The same aggregate, or the same exception: errors of a strategy are its user's to see."""
    monkeypatch.setattr("gc.collect", lambda *_: 0)
    config = small_config(federation={"clients": CLIENTS, "strategy": name})
    make = lambda: build(config.federation, lr=0.1, buffers=["n"])
    alone, recording = make(), Recording(make(), tmp_path, memory=0)
    like = {key: value.numpy() for key, value in MODEL.items()}
    raised = 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        for round_ in range(1, 61):
            expected = outcome(alone, one_hostile(like, name, round_), round_)
            assert outcome(recording, one_hostile(like, name, round_), round_) == expected
            raised += isinstance(expected[0], type)
    assert 0 < raised < 60
    assert recording.unrecorded == [] or recording.norms
