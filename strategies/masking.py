"""The arithmetic of secure aggregation: fixed-point numbers, masks that cancel, and drop-outs.

Bonawitz, Ivanov, Kreuter, Marcedone, McMahan, Patel, Ramage, Segal, Seth, "Practical Secure
Aggregation for Privacy-Preserving Machine Learning", CCS 2017, figure 4; with the neighbours of
Bell, Bonawitz, Gascón, Lepoint, Raykova, "Secure Single-Server Aggregation with (Poly)Logarithmic
Overhead", CCS 2020 (SecAgg+).

Client i uploads, modulo 2^k,

    y_i = ⌊s·n_i·x_i⌉ + PRG(b_i) + Σ_{j > i} PRG(s_ij) − Σ_{j < i} PRG(s_ij)

over its neighbours j, and n_i masked likewise. Where all upload, the pairwise masks cancel and the
server learns the self masks b_i. For one that drops out after the others have masked, its pairwise
seeds are put together instead, from the shares that enough of its neighbourhood still holds: of
nobody the server learns both.

*Differs from the papers*: seeds are dealt from one secret instead of agreed upon by Diffie-Hellman
and shared by Shamir's scheme; shares are counted, not computed; a client drops out before its
upload or not at all; the ring is in the order of sampling. This simulates what the protocol lets a
server learn, and protects no one from a server that knows the secret. Flower's own protocol is
recorded by `strategies.secagg_plus`.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fedsim.core.errors import ConfigError
from fedsim.core.params import not_finite
from fedsim.core.rng import generator
from fedsim.core.types import Params


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """What every party of one round knows.

    Attributes:
        round: Its number.
        members: All that were asked, in the order of their ring.
        threshold: Share of a neighbourhood that must remain.
        clip: Largest absolute value that can be summed.
        modulus_bits: k; numbers are whole, modulo 2^k.
        max_examples: Largest weight that can be summed.
        neighbours: With how many others each one shares masks, half of them on either side of it
            on the ring; None with all.

    Raises:
        ConfigError: The numbers leave no precision, or there is nobody to hide behind.
    """

    round: int
    members: tuple[str, ...]
    threshold: float
    clip: float
    modulus_bits: int
    max_examples: int
    neighbours: int | None = None

    def __post_init__(self) -> None:
        if len(self.members) < 2:
            raise ConfigError(
                "secure_aggregation: must have at least 2 clients per round, "
                f"got {len(self.members)}"
            )
        weights = len(self.members) * self.max_examples  # their sum is uploaded beside the entries
        if self.scale < 1 or weights >= 2 ** (self.modulus_bits - 1):
            raise ConfigError(
                "secure_aggregation.modulus_bits: must hold clients · max_examples · clip = "
                f"{len(self.members)} · {self.max_examples} · {self.clip:g}, "
                f"got {self.modulus_bits}"
            )

    @property
    def scale(self) -> float:
        """s: the largest with which no sum leaves the modulus."""
        count = len(self.members)
        room = 2.0 ** (self.modulus_bits - 1) - count
        return math.floor(room / (count * self.max_examples * self.clip))

    @property
    def error(self) -> float:
        """The most that rounding to whole numbers adds to a weighted sum.

        Over the total weight it is that of the mean, which is also rounded to float64.
        """
        return len(self.members) / (2 * self.scale)

    def neighbourhood(self, member: str) -> list[str]:
        """Return with whom a member shares masks, without itself."""
        place, count = self.members.index(member), len(self.members)
        if self.neighbours is None or self.neighbours >= count - 1:
            return [other for other in self.members if other != member]
        steps = range(1, self.neighbours // 2 + 1)
        places = {(place + way * step) % count for step in steps for way in (1, -1)}
        return [self.members[other] for other in sorted(places)]

    def lacking(self, remaining: Iterable[str]) -> tuple[int, int, int] | None:
        """Return how many of a neighbourhood remain, must, and were; None where enough do."""
        present = set(remaining)
        for member in self.members:
            around = [member, *self.neighbourhood(member)]
            needed = max(2, math.ceil(self.threshold * len(around)))
            if (left := len(present.intersection(around))) < needed:
                return left, needed, len(around)
        return None

    def wrapped(self, numbers: Tensor) -> Tensor:
        """Return whole numbers modulo 2^k, from 0."""
        return numbers & (2**self.modulus_bits - 1)

    def centred(self, numbers: Tensor) -> Tensor:
        """Return whole numbers modulo 2^k as those nearest to 0."""
        half = 2 ** (self.modulus_bits - 1)
        return self.wrapped(numbers + half) - half


def encode(protocol: Protocol, upload: Params, num_examples: object) -> Tensor:
    """Return an upload times its weight, and the weight, as one vector of whole numbers.

    Raises:
        ValueError: A value or the weight is not what the protocol can sum.
    """
    n, most = num_examples, protocol.max_examples
    if not isinstance(n, int | float) or n != round(n) or not 0 <= n <= most:
        raise ValueError(
            f"num-examples: must be a whole number from 0 to secure_aggregation.max_examples = "
            f"{most}, got {n}"
        )
    if reason := not_finite(upload):
        raise ValueError(reason)
    for name, value in upload.items():
        if value.numel() and (largest := float(value.abs().max())) > protocol.clip:
            raise ValueError(
                f"{name}: must lie within ± secure_aggregation.clip = {protocol.clip:g}, "
                f"got {largest:g}"
            )
    values = [
        (value.double() * (n * protocol.scale)).round().flatten() for value in upload.values()
    ]
    return torch.cat([*values, torch.tensor([n], dtype=torch.float64)]).long()


def masked(protocol: Protocol, numbers: Tensor, member: str, secret: int) -> Tensor:
    """Return what a member uploads of its numbers."""
    total = protocol.wrapped(numbers) + _self_mask(protocol, member, len(numbers), secret)
    for other in protocol.neighbourhood(member):
        total = protocol.wrapped(total + _pair_mask(protocol, member, other, len(numbers), secret))
    return protocol.wrapped(total)


def unmasked(
    protocol: Protocol, uploads: Iterable[tuple[str, Tensor]], secret: int
) -> tuple[Tensor, list[str]]:
    """Return the sum of the uploaders' numbers, and who they are; nothing else can be known.

    Args:
        protocol: Of the round.
        uploads: Members and their masked numbers, once each; the others have dropped out.
        secret: As for `masked`.

    Raises:
        ValueError: Too few remain.
    """
    total, remaining = torch.zeros((), dtype=torch.int64), []
    for member, numbers in uploads:
        total = protocol.wrapped(total + numbers)
        remaining.append(member)
    if lacking := protocol.lacking(remaining):
        left, needed, around = lacking
        raise ValueError(
            f"secure_aggregation.threshold: at least {needed} of {around} clients must remain for "
            f"the masks to be taken off, got {left}"
        )
    present, size = set(remaining), len(total)
    for member in remaining:
        total = protocol.wrapped(total - _self_mask(protocol, member, size, secret))
    for gone in (member for member in protocol.members if member not in present):
        for other in present.intersection(protocol.neighbourhood(gone)):
            total = protocol.wrapped(total - _pair_mask(protocol, other, gone, size, secret))
    return protocol.centred(total), remaining


def decode(
    protocol: Protocol, total: Tensor, shapes: Sequence[tuple[str, torch.Size]]
) -> tuple[dict[str, Tensor], int]:
    """Return the weighted mean of the uploads, float64, and the total weight.

    Raises:
        ValueError: The total weight is 0.
    """
    *values, weight = total.split([*(shape.numel() for _, shape in shapes), 1])
    if (examples := int(weight)) < 1:
        raise ValueError(f"num-examples: must add up to at least 1, got {examples}")
    divisor = protocol.scale * examples
    return {
        name: (value.double() / divisor).view(shape)
        for (name, shape), value in zip(shapes, values, strict=True)
    }, examples


def _self_mask(protocol: Protocol, member: str, size: int, secret: int) -> Tensor:
    return _prg(protocol, size, secret, "self mask", protocol.round, member)


def _pair_mask(protocol: Protocol, member: str, other: str, size: int, secret: int) -> Tensor:
    """Return the mask that `member` adds for `other`, who adds its negative."""
    first, second = sorted((member, other))
    mask = _prg(protocol, size, secret, "pair mask", protocol.round, first, second)
    return mask if member == first else -mask


def _prg(protocol: Protocol, size: int, secret: int, *names: object) -> Tensor:
    stream = generator(secret, *names)
    return torch.randint(2**protocol.modulus_bits, (size,), generator=stream, dtype=torch.int64)
