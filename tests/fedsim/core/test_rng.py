import os
import random
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from threading import Event, Thread

import pytest
import torch

from fedsim.core.rng import derive, generator, global_stream, secret_generator


def test_a_stream_is_named_by_all_its_parts():
    seeds = [derive(0, "ab", "c"), derive(0, "a", "bc"), derive(1, "ab", "c"), derive(0, "abc")]
    assert len(set(seeds)) == 4
    assert derive(0, "train", 3) == derive(0, "train", "3") == 1559252674031935390


def test_the_same_name_gives_the_same_numbers():
    first, second = (torch.rand(3, generator=generator(5, "x")) for _ in range(2))
    assert torch.equal(first, second)
    assert not torch.equal(first, torch.rand(3, generator=generator(6, "x")))


def test_the_global_generator_is_put_back():
    torch.manual_seed(0)
    expected = torch.rand(2)
    torch.manual_seed(0)
    with global_stream(1, "model"):
        inside = torch.rand(2)
    assert torch.equal(torch.rand(2), expected)
    assert not torch.equal(inside, expected)


def test_secret_coins_are_new_every_time_and_well_spread():
    draws = [torch.randn(4000, generator=secret_generator()) for _ in range(3)]
    assert len({tuple(draw[:3].tolist()) for draw in draws}) == 3
    for draw in draws:
        assert abs(float(draw.mean())) < 5 / 4000**0.5
        assert abs(float(draw.std()) - 1) < 5 / 8000**0.5


@pytest.mark.parametrize("make", [secret_generator, lambda: generator(0, "x")])
def test_a_stream_is_more_than_a_seed_of_32_bits_can_say(make):
    words = [int(word) for word in make().get_state().numpy().view("uint64")[3:627]]
    assert all(word < 2**32 for word in words)
    seeded = lambda first: (1812433253 * (first ^ (first >> 30)) + 1) % 2**32
    assert words[1] != seeded(words[0])
    usual = torch.Generator().manual_seed(3).get_state().numpy().view("uint64")
    assert int(usual[4]) == seeded(int(usual[3]))


def test_named_streams_are_well_spread_and_apart():
    draws = torch.stack([torch.rand(1000, generator=generator(0, "s", n)) for n in range(200)])
    assert abs(float(draws.mean()) - 0.5) < 5 * (1 / 12 / 200_000) ** 0.5
    together = torch.corrcoef(draws)
    together.fill_diagonal_(0)
    assert float(together.abs().max()) < 6 / 1000**0.5


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork")
def test_a_process_that_is_forked_in_a_turn_waits_for_no_thread_of_its_parent():
    begun, forked = Event(), Event()

    def turn():
        with global_stream(0, "parent"):
            begun.set()
            forked.wait()

    thread = Thread(target=turn)
    thread.start()
    begun.wait()
    child = os.fork()
    if child == 0:
        signal.alarm(60)  # ends a child that waits
        with global_stream(0, "child"):
            os._exit(0)
    forked.set()
    thread.join()
    assert os.waitpid(child, 0)[1] == 0


def test_threads_take_turns_at_the_global_generators():
    def drawn(name):
        with global_stream(0, name):
            values = []
            for _ in range(50):
                values.append((float(torch.rand(())), random.random()))
                time.sleep(0)  # others would go on here
        return values

    names = ["a", "b", "c", "d"]
    alone = [drawn(name) for name in names]
    with ThreadPoolExecutor(len(names)) as pool:
        assert list(pool.map(drawn, names)) == alone
