import torch

from fedsim.rng import derive, generator, global_stream


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
