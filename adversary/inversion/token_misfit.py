"""How far the tokens of pictures lie outside the spans of an update."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from adversary.inversion.token_readers import rows_of
from adversary.inversion.token_spans import Outside
from fedsim.core.rng import generator

CHUNK = 32  # pictures that go through the model together
GREY = 0.5
LEAST = 1e-30


class Misfit:
    """Pictures → the mean share of layers' inputs outside their spans, in that of grey.

    Args:
        model: At the weights sent; of float32 or float64, which all is computed in.
        outsides: What layers say.
        shape: Of one picture.
        pixels: Which numbers of a picture each patch has.
    """

    def __init__(
        self,
        model: nn.Module,
        outsides: Sequence[Outside],
        shape: tuple[int, ...],
        pixels: Int[Tensor, "patches size"],
    ) -> None:
        self.model, self.shape, self.pixels = model, shape, pixels
        self.dtype = next(model.parameters()).dtype
        self.readers = [it.reader for it in outsides]
        self.bases = {it.reader.module: it.basis.to(self.dtype) for it in outsides}
        grey = torch.full((1, *shape), GREY, dtype=self.dtype)
        with torch.no_grad():
            self.scales = {n: max(float(it.mean()), LEAST) for n, it in self._shares(grey).items()}
            self.places = self._places()

    def tokens(self, images: Float[Tensor, "n *shape"]) -> list[Float[Tensor, "n tokens"]]:
        """Return each layer's shares, token by token."""
        return [share / self.scales[name] for name, share in self._shares(images).items()]

    def __call__(self, points: Float[Tensor, "rows n"]) -> tuple[Tensor, Tensor]:
        """Return misfits and their gradients."""
        losses, slopes = [], []
        for part in points.detach().split(CHUNK):
            with torch.enable_grad():
                v = part.clone().requires_grad_()
                loss = self._of(v)
                slopes.append(torch.autograd.grad(loss.sum(), v)[0])
            losses.append(loss.detach())
        return torch.cat(losses), torch.cat(slopes)

    def patches(self, points: Float[Tensor, "rows n"]) -> Float[Tensor, "rows patches"]:
        """Return the misfit of the token of each patch."""
        with torch.no_grad():
            shares = self.tokens(points.unflatten(1, self.shape))
        return torch.stack([share[:, self.places] for share in shares]).mean(dim=0)

    def _of(self, points: Tensor) -> Float[Tensor, " rows"]:
        parts = [share.mean(dim=1) for share in self.tokens(points.unflatten(1, self.shape))]
        return torch.stack(parts).mean(dim=0)

    def _shares(self, images: Tensor) -> dict[str, Tensor]:
        shares: dict[str, Tensor] = {}
        for name, rows in rows_of(self.model, self.readers, images).items():
            beyond = (rows @ self.bases[name].T).square().sum(dim=-1)
            shares[name] = beyond / rows.square().sum(dim=-1).clamp(min=LEAST)
        return shares

    def _places(self) -> Int[Tensor, " patches"]:
        """Return which token of the first layer moves most with each patch."""
        stream = generator(0, "places of patches")
        reader, size = self.readers[0], torch.Size(self.shape).numel()
        base = torch.rand(size, generator=stream).to(self.dtype)
        moved = base.repeat(len(self.pixels), 1)
        moved.scatter_(1, self.pixels, torch.rand(self.pixels.shape, generator=stream).to(base))
        points = torch.cat([base[None], moved]).split(CHUNK)
        parts = [rows_of(self.model, [reader], it.unflatten(1, self.shape)) for it in points]
        rows = torch.cat([part[reader.module] for part in parts])
        return (rows[1:] - rows[:1]).norm(dim=2).argmax(dim=1)
