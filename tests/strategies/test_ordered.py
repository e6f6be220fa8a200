import random
import time
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from flwr.app import ConfigRecord, Error, Message, RecordDict
from flwr.supercore.inflatable.inflatable_utils import ObjectPullError, ObjectUnavailableError
from flwr.superlink.grid import http_grid

import strategies
from fedsim.core.errors import RunStopped
from fedsim.core.wire import CONFIG, to_record
from fedsim.federation.grid import SimulationGrid
from strategies import OrderedGrid
from tests.builders import answering, grid_of, reply_with, small_config


class Shuffled(SimulationGrid):
    """Flower's grid as it is: random node ids in any order, replies in any order."""

    def __init__(self, num_clients, answer, seed):
        self.stream = random.Random(seed)
        super().__init__(num_clients, answering(answer), Path("unused"))
        self.ids = {self.stream.getrandbits(60): node for node in super().get_node_ids()}

    def get_node_ids(self):
        return self.stream.sample(list(self.ids), len(self.ids))

    def send_and_receive(self, messages, *, timeout=None):
        back = {node: own for own, node in self.ids.items()}
        messages = list(messages)
        for message in messages:
            message.metadata.dst_node_id = self.ids[message.metadata.dst_node_id]
        replies = list(super().send_and_receive(messages))
        for message in messages:
            message.metadata.dst_node_id = back[message.metadata.dst_node_id]
        for reply in replies:
            reply.metadata.__dict__["_src_node_id"] = back[reply.metadata.src_node_id]
        self.stream.shuffle(replies)
        return replies


def number(client):
    content = reply_with({"w": torch.full((1,), float(client)).numpy()}, 1)
    content[CONFIG] = ConfigRecord({"client": str(client)})
    return content


@pytest.mark.parametrize("seed", range(3))
def test_nodes_and_replies_stand_in_the_order_of_clients(seed):
    grid = OrderedGrid(Shuffled(5, number, seed), 5)
    assert [grid.client_of(node) for node in grid.get_node_ids()] == list("01234")
    nodes = list(grid.get_node_ids())
    order = [3, 0, 4]
    messages = [Message(RecordDict(), nodes[i], "train") for i in order]
    replies = grid.send_and_receive(messages)
    assert [grid.client_of(reply.metadata.src_node_id) for reply in replies] == list("304")


def test_a_reply_whose_arrays_never_come_is_given_up_in_time(patience):
    pull, grid = http_grid.pull_objects, grid_of(2, number)
    ordered = OrderedGrid(grid, 2)

    def send_and_receive(messages, *, timeout=None):
        with pytest.raises(ObjectPullError, match="timeout"):
            http_grid.pull_objects(["a"], never)
        return []

    grid.send_and_receive = send_and_receive
    most, begun = patience(10.0), time.monotonic()
    assert ordered.send_and_receive([], timeout=1.0) == []
    assert time.monotonic() - begun < most
    assert http_grid.pull_objects is pull


class Stalled(http_grid.HttpGrid):
    """Flower's grid of deployments, where one reply's arrays never come."""

    def __init__(self, inner):
        self.inner, self.replies, self.stalled, self.looks = inner, {}, False, 0

    def get_node_ids(self):
        return self.inner.get_node_ids()

    def push_messages(self, messages):
        replies = self.inner.send_and_receive(list(messages))
        self.replies = {reply.metadata.reply_to_message_id: reply for reply in replies}
        return list(self.replies)

    def pull_messages(self, message_ids):
        if not self.stalled:
            return [self.replies[it] for it in message_ids]
        self.looks += 1
        with suppress(ObjectPullError):
            http_grid.pull_objects(["a"], never)
        lost = next(iter(self.replies))  # the others answer while the grid waits for its arrays
        return [self.replies[it] for it in message_ids if it != lost] if self.looks > 1 else []

    def close(self):
        pass


def never(object_id):
    raise ObjectUnavailableError(object_id)


def test_replies_behind_one_that_does_not_come_are_taken_all_the_same(monkeypatch, patience):
    most = patience(0.5)
    monkeypatch.setattr("flwr.superlink.grid.http_grid.time.sleep", lambda seconds: None)
    grid = Stalled(grid_of(3, number))
    ordered = OrderedGrid(grid, 3)
    grid.stalled = True
    messages = [Message(RecordDict(), node, "train") for node in ordered.get_node_ids()]
    replies = ordered.send_and_receive(messages, timeout=most)
    assert [ordered.client_of(reply.metadata.src_node_id) for reply in replies] == ["1", "2"]


def test_a_node_that_is_gone_is_still_asked_and_its_absence_told():
    grid = grid_of(3, number)
    ordered = OrderedGrid(grid, 3)
    grid.num_clients = 2  # as when Flower counts the third as offline
    assert [ordered.client_of(node) for node in ordered.get_node_ids()] == list("012")


def test_sampling_depends_on_the_seed_and_round_alone():
    config = small_config(federation={"clients": 8, "per_round": 3})

    def sampled(grid_seed, round_):
        grid = OrderedGrid(Shuffled(8, number, grid_seed), 8)
        strategy = strategies.build(config.federation, lr=config.local.lr, buffers=[])
        arrays = to_record({"w": torch.zeros(1)})
        with strategies.sampling(config.seed, round_):
            messages = strategy.configure_train(round_, arrays, ConfigRecord(), grid)
        return [grid.client_of(message.metadata.dst_node_id) for message in messages]

    assert sampled(0, 1) == sampled(7, 1)
    assert len({tuple(sampled(0, round_)) for round_ in range(1, 9)}) > 1
    assert len(sampled(0, 1)) == 3


def test_the_global_stream_is_put_back():
    before = random.getstate()
    with strategies.sampling(0, 1):
        random.random()
    after = random.getstate()
    assert after == before


def test_it_does_not_start_with_too_few_or_strange_clients():
    with pytest.raises(RunStopped, match="clients: 5 must connect, got 3 in time"):
        OrderedGrid(grid_of(3, number), 5, timeout=0.1)
    with pytest.raises(RunStopped, match=r"numbers must be 0 to 2, each once, got \[0, 0, 0\]"):
        OrderedGrid(grid_of(3, lambda client: number(0)), 3)
    with pytest.raises(RunStopped, match="one could not start .*no data"):
        OrderedGrid(grid_of(3, lambda client: ValueError("no data")), 3)


@pytest.mark.parametrize("answer", [None, "x", "-1", 7, "٣"])
def test_a_node_that_does_not_say_which_client_it_is_gets_one_sentence(answer):
    def reply(client):
        record = ConfigRecord() if answer is None else ConfigRecord({"client": answer})
        return RecordDict({CONFIG: record})

    with pytest.raises(RunStopped, match="^clients: each must say its number, got "):
        OrderedGrid(grid_of(2, reply), 2)


def test_what_becomes_of_nodes_is_said_as_it_happens():
    facts = []
    grid = grid_of(3, number)
    pushed = {}

    def push_messages(messages):
        for place, message in enumerate(messages):
            message.metadata.__dict__["_message_id"] = f"m{place}"
            pushed[f"m{place}"] = message
        return list(pushed)

    def pull_messages(ids):  # as Flower's grid has them: one at a time, errors by the SuperLink
        message = pushed.pop(sorted(ids)[0])
        if message.metadata.message_id == "m1":
            return [Message(Error(code=0, reason="gone"), reply_to=message)]
        return [Message(RecordDict(), reply_to=message)]

    def send_and_receive(messages, *, timeout=None):
        ids, replies = set(grid.push_messages(messages)), []
        while ids:
            replies += grid.pull_messages(ids)
            ids.discard(replies[-1].metadata.reply_to_message_id)
        return replies

    ordered = OrderedGrid(grid, 3, on_fact=facts.append)
    assert facts == [{"connected": 3, "of": 3}, *({"ready": client} for client in "012")]
    facts.clear()
    grid.push_messages, grid.pull_messages = push_messages, pull_messages
    grid.send_and_receive = send_and_receive
    content = RecordDict({CONFIG: ConfigRecord({"server-round": 4})})
    nodes = list(ordered.get_node_ids())
    ordered.send_and_receive([Message(content, node, "train") for node in nodes])
    assert facts == [
        {"training": ["0", "1", "2"], "round": 4},
        *({"replied": client, "ok": client != "1"} for client in "012"),
    ]
    assert grid.pull_messages is pull_messages
    facts.clear()
    ordered.send_and_receive([Message(RecordDict(), node, "evaluate") for node in nodes])
    assert facts == []
