import math
from dataclasses import replace

import pytest
import torch
from scipy.stats import chisquare

from fedsim.core.errors import ConfigError
from fedsim.core.rng import generator
from strategies.masking import Protocol, decode, encode, masked, unmasked

SHAPES = [("w", torch.Size([40, 3])), ("b", torch.Size([])), ("n", torch.Size([0]))]


def protocol(count=6, **changes):
    members = tuple(str(100 + k) for k in range(count))
    plain = Protocol(
        round=1, members=members, threshold=2 / 3, clip=4.0, modulus_bits=32, max_examples=500
    )
    return replace(plain, **changes)


def upload(member):
    stream = generator(0, "upload", member)
    return {name: torch.randn(shape, generator=stream).clamp(-4, 4) for name, shape in SHAPES}, int(
        torch.randint(1, 500, (), generator=stream)
    )


def summed(agreed, there, secret=5):
    uploads = [(m, masked(agreed, encode(agreed, *upload(m)), m, secret)) for m in there]
    total, members = unmasked(agreed, uploads, secret)
    assert members == list(there)
    return decode(agreed, total, SHAPES)


@pytest.mark.parametrize("lost", [(), (3,), (0, 4)])
@pytest.mark.parametrize("neighbours", [None, 4])
@pytest.mark.parametrize("bits", [32, 62])
def test_the_sum_is_the_plain_one_to_the_rounding_whoever_drops_out(lost, neighbours, bits):
    share = 2 / 3 if neighbours is None else 0.51
    agreed = protocol(neighbours=neighbours, modulus_bits=bits, threshold=share)
    there = [m for k, m in enumerate(agreed.members) if k not in lost]
    mean, examples = summed(agreed, there)
    plain = [upload(m) for m in there]
    assert examples == sum(n for _, n in plain)
    for name, shape in SHAPES:
        true = sum(values[name].double() * n for values, n in plain) / examples
        assert mean[name].shape == shape
        far = (mean[name] - true).abs()
        assert far.numel() == 0 or float(far.max()) <= agreed.error / examples + 1e-15
    if bits == 32:  # the bound is of the right size, not merely never reached
        true = sum(values["w"].double() * n for values, n in plain) / examples
        assert float((mean["w"] - true).abs().max()) > 0.2 * agreed.error / examples / len(there)


def test_a_sum_at_the_edge_of_the_range_does_not_wrap():
    agreed = protocol()
    for sign in (-1.0, 1.0):
        extreme = {name: torch.full(shape, 4.0 * sign) for name, shape in SHAPES}
        uploads = [(m, masked(agreed, encode(agreed, extreme, 500), m, 0)) for m in agreed.members]
        mean, _ = decode(agreed, unmasked(agreed, uploads, 0)[0], SHAPES)
        assert torch.allclose(mean["w"], extreme["w"].double(), atol=1e-6)


def is_uniform(numbers, bits):
    """Return whether high and low bits of whole numbers are as of even draws, at 1 in 10,000."""
    parts = (numbers >> (bits - 4), numbers & 15)
    return all(chisquare(torch.bincount(part, minlength=16)).pvalue > 1e-4 for part in parts)


@pytest.mark.parametrize("neighbours", [None, 2])
def test_an_upload_is_uniform_whatever_is_in_it_and_so_is_the_sum_of_all_but_one(neighbours):
    agreed = protocol(neighbours=neighbours)
    shapes = [("w", torch.Size([20_000]))]
    numbers = {m: encode(agreed, {"w": torch.full(shapes[0][1], 1.5)}, 100) for m in agreed.members}
    assert not is_uniform(agreed.wrapped(next(iter(numbers.values()))), 32)  # the test can fail
    hidden = {m: masked(agreed, numbers[m], m, secret=1) for m in agreed.members}
    assert all(is_uniform(y, 32) for y in hidden.values())
    rest = agreed.wrapped(sum(y for m, y in hidden.items() if m != "102"))
    assert is_uniform(rest, 32)
    correlated = torch.corrcoef(torch.stack([y.double() for y in hidden.values()]))
    off = correlated - torch.eye(len(hidden))
    assert float(off.abs().max()) < 5 / math.sqrt(20_000)


def test_masks_differ_between_clients_and_rounds_and_only_the_secrets_own_sum_is_plain():
    agreed = protocol()
    zeros = torch.zeros(1000, dtype=torch.int64)
    seen = [
        masked(replace(agreed, round=round_), zeros, m, 1)
        for round_ in (1, 2)
        for m in ("100", "101")
    ]
    for i, one in enumerate(seen):
        for other in seen[i + 1 :]:
            assert (one == other).double().mean() < 0.01
    uploads = [(m, masked(agreed, zeros, m, 1)) for m in agreed.members]
    assert torch.equal(unmasked(agreed, uploads, 1)[0], zeros)
    assert float((unmasked(agreed, uploads, 2)[0] == 0).double().mean()) < 0.01


def test_too_few_clients_is_one_sentence():
    agreed = protocol()
    summed(agreed, agreed.members[:4])
    with pytest.raises(ValueError, match=r"threshold: at least 4 of 6 clients must remain .*got 3"):
        summed(agreed, agreed.members[:3])
    with pytest.raises(ValueError, match="at least 4 of 6 clients .*got 0"):
        unmasked(agreed, [], 0)
    ring = protocol(9, neighbours=2)  # of three in a row two must remain, wherever they stand
    summed(ring, [m for k, m in enumerate(ring.members) if k not in (1, 4, 7)])
    with pytest.raises(ValueError, match="at least 2 of 3 clients .*got 1"):
        summed(ring, [m for k, m in enumerate(ring.members) if k not in (1, 2)])
    pair = protocol(2, threshold=0.51)  # a sum over one client is that client's upload
    with pytest.raises(ValueError, match="at least 2 of 2 clients .*got 1"):
        summed(pair, pair.members[:1])


WRONG = {
    "clip": ({"w": torch.tensor([0.0, -4.5])}, 3, r"w: must lie within ± .*clip = 4, got 4\.5"),
    "nan": ({"w": torch.tensor([math.nan])}, 3, "w: must be finite"),
    "many": ({"w": torch.zeros(1)}, 501, "whole number from 0 to .*max_examples = 500, got 501"),
    "half": ({"w": torch.zeros(1)}, 2.5, "must be a whole number .*got 2.5"),
    "negative": ({"w": torch.zeros(1)}, -1, "must be a whole number .*got -1"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_cannot_be_summed_is_not_masked(case):
    values, examples, sentence = WRONG[case]
    with pytest.raises(ValueError, match=sentence):
        encode(protocol(), values, examples)


def test_a_protocol_without_precision_or_company_is_refused():
    with pytest.raises(ConfigError, match=r"modulus_bits: must hold .* = 6 · 500 · 4, got 12"):
        protocol(modulus_bits=12)
    with pytest.raises(ConfigError, match="modulus_bits: must hold"):  # the weights' own sum
        Protocol(
            round=1,
            members=tuple("0123456789"),
            threshold=2 / 3,
            clip=0.01,
            modulus_bits=16,
            max_examples=7000,
        )
    with pytest.raises(ConfigError, match="must have at least 2 clients per round, got 1"):
        protocol(1)
    agreed = protocol()
    uploads = [(m, masked(agreed, encode(agreed, {}, 0), m, 1)) for m in agreed.members]
    with pytest.raises(ValueError, match="num-examples: must add up to at least 1, got 0"):
        decode(agreed, unmasked(agreed, uploads, 1)[0], [])
