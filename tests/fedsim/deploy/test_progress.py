"""What an operator reads of the nodes, from the log of a run."""

import pytest

from fedsim.deploy.progress import EXPLAINED, FEW, QUIET, Nodes, facts_in, line


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def log(**facts):
    return f"INFO :      {line(facts)}\n"


@pytest.mark.worked
def test_a_node_has_a_line_for_each_step():
    clock = Clock()
    nodes = Nodes(clock)
    assert nodes.still() is None
    clock.now = QUIET
    assert nodes.still() == "no node has connected after 30 s; Flower starts the server first"
    assert nodes.hear(log(connected=1, of=2)) == ["1 of 2 nodes connected"]
    clock.now += QUIET
    assert nodes.still() == (
        "1 of 2 nodes connected after 60 s; start the others, their keys are not at fault"
    )
    assert nodes.still() is None  # said, and quiet again
    assert nodes.hear(log(connected=2, of=2)) == ["2 of 2 nodes connected"]
    assert nodes.hear(log(ready="1")) == ["client 1 ready"]
    clock.now += QUIET
    assert nodes.still() == (
        "all nodes connected, not all are ready after 90 s: each starts a process"
    )
    assert nodes.hear(log(training=["0", "1"], round=1)) == ["round 1: clients 0, 1 training"]
    clock.now += 45
    assert nodes.hear(log(replied="1", ok=True)) == ["client 1 uploaded after 45 s"]
    clock.now += QUIET
    assert nodes.still() == "round 1: client 0 training for 75 s"
    assert nodes.hear(log(replied="0", ok=False)) == ["client 0 failed after 75 s"]
    assert nodes.hear(log(attacked=1, seconds=0.52)) == ["round 1: attacked in 0.5 s"]


def test_many_clients_are_counted_and_not_too_often():
    clock = Clock()
    nodes = Nodes(clock)
    clients = [str(number) for number in range(100)]
    [sentence] = nodes.hear(log(training=clients, round=1))
    assert sentence.endswith(" and 90 more training")
    assert len(sentence) < 100
    clock.now = 6.0
    said = [sentence for client in clients for sentence in nodes.hear(log(replied=client, ok=True))]
    assert said == ["1 of 100 clients replied", "100 of 100 clients replied"]
    assert FEW < 100


def test_a_401_is_explained_once():
    nodes = Nodes(Clock())
    text = 'INFO [uvicorn.access] 127.0.0.1:1 - "POST /v1/runtime/heartbeat HTTP/1.1" 401'
    assert nodes.hear(text) == [EXPLAINED]
    assert nodes.hear(text) == []


@pytest.mark.parametrize(
    "text", ["", "INFO: hello", "fedsim-progress {", "fedsim-progress []", log(odd=1), log(ready=3)]
)
def test_other_lines_say_nothing(text):
    assert Nodes(Clock()).hear(text) == []
    assert facts_in("INFO") is None


def test_text_of_a_node_does_not_steer_the_terminal():
    [sentence] = Nodes(Clock()).hear(log(ready="1\x1b[31m\n2"))
    assert sentence.isprintable()
