"""Layers that stand in for a model's own, so that rows of inputs go through them together."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from fedsim.core.types import Params


class NotLayeredError(Exception):
    """A parameter is used in another way than the layers here do."""


def _given(args: Sequence[Any], kwargs: dict[str, Any]) -> Iterator[Any]:
    """Yield what a function is given, and what lists among it hold, as of recurrent layers."""
    for value in (*args, *kwargs.values()):
        if isinstance(value, (list, tuple)):
            yield from value
        else:
            yield value


class _Layers(TorchFunctionMode):
    """Stands between a model and the layers that it calls.

    Args:
        weights: The parameters by name.
        rows: Of inputs.
        statistics: Where batch norms put the mean and the unbiased variance of each row's inputs,
            (rows, channels), by the identity of their running mean; None for nowhere.
    """

    def __init__(
        self, weights: Params, rows: int, statistics: dict[int, tuple[Tensor, Tensor]] | None = None
    ) -> None:
        super().__init__()
        self.names = {id(value): name for name, value in weights.items()}
        self.rows, self.statistics = rows, statistics

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        supported = func in _SIGNATURES
        if not supported and not any(id(a) in self.names for a in _given(args, kwargs)):
            return func(*args, **kwargs)
        if not supported:
            if getattr(func, "__name__", "") == "__get__":  # its shape, its dtype
                return func(*args, **kwargs)
            raise NotLayeredError
        kind, parameters = _SIGNATURES[func]
        given = dict(zip(parameters, args, strict=False)) | kwargs
        with torch._C.DisableTorchFunction():
            return getattr(self, kind)(func, given)

    def name(self, value: Tensor | None) -> str | None:
        """Return the name of a parameter; None for none, and for one that stays as it is."""
        return None if value is None else self.names.get(id(value))

    def _norm(self, func: Any, given: dict[str, Any]) -> Tensor:
        """Normalise without the affine map; batch statistics are each row's own."""
        x = given["input"]
        if func is functional.group_norm:
            eps = given.get("eps", 1e-5)
            return functional.group_norm(x, given["num_groups"], None, None, eps)
        eps, running = given.get("eps", 1e-5), given.get("running_mean")
        if self.statistics is not None and running is not None:
            each = x.unflatten(0, (self.rows, -1)).transpose(1, 2).flatten(2)
            several = int(each.shape[2] > 1)
            variances = each.var(dim=2, correction=several)
            self.statistics[id(running)] = each.mean(dim=2), variances
        if not given.get("training"):
            still = given["running_mean"], given["running_var"]
            return functional.batch_norm(x, *still, None, None, eps=eps)
        wide = x.unflatten(0, (self.rows, -1)).transpose(0, 1).flatten(1, 2)
        wide = functional.batch_norm(wide, None, None, None, None, training=True, eps=eps)
        return wide.unflatten(1, (self.rows, -1)).transpose(0, 1).flatten(0, 1)


class SharedLayers(_Layers):
    """Layers run once over all rows, and remember how to take weight gradients row by row."""

    def __init__(
        self, weights: Params, rows: int, statistics: dict[int, tuple[Tensor, Tensor]] | None = None
    ) -> None:
        super().__init__(weights, rows, statistics)
        self.taps: list[tuple[Tensor, int, Any]] = []

    def _tap(self, out: Tensor, backward: Any) -> Tensor:
        out = out if out.requires_grad else out.requires_grad_()
        self.taps.append((out, out._version, backward))
        return out

    def _linear(self, func: Any, given: dict[str, Any]) -> Tensor:
        x, bias = given["input"], given.get("bias")
        weight_name, bias_name = self.name(given["weight"]), self.name(bias)

        def backward(slope: Tensor) -> Iterator[tuple[str, Tensor]]:
            d = slope.reshape(self.rows, -1, slope.shape[-1])
            if weight_name is not None:
                a = x.reshape(self.rows, -1, x.shape[-1])
                yield weight_name, torch.bmm(d.transpose(1, 2), a)
            if bias_name is not None:
                yield bias_name, d.sum(dim=1)

        return self._tap(func(x, given["weight"], bias), backward)

    def _conv(self, func: Any, given: dict[str, Any]) -> Tensor:
        x, weight, bias, stride, padding, dilation = _convolution(given)
        weight_name, bias_name = self.name(weight), self.name(bias)
        rows, (height, width) = self.rows, weight.shape[2:]

        def backward(slope: Tensor) -> Iterator[tuple[str, Tensor]]:
            d = slope.unflatten(0, (rows, -1))
            if weight_name is not None:
                # A convolution again: examples are summed over as channels are, a group per row;
                # stride and dilation change places.
                a = x.unflatten(0, (rows, -1)).flatten(0, 1).transpose(0, 1)
                kernel = d.transpose(1, 2).flatten(0, 1)
                g = functional.conv2d(a, kernel, None, dilation, padding, stride, rows)
                g = g[..., :height, :width].unflatten(1, (rows, -1))
                yield weight_name, g.permute(1, 2, 0, 3, 4).contiguous()
            if bias_name is not None:
                yield bias_name, d.sum(dim=(1, 3, 4))

        return self._tap(func(x, weight, bias, stride, padding, dilation), backward)

    def _norm(self, func: Any, given: dict[str, Any]) -> Tensor:
        x = super()._norm(func, given)
        weight, bias = given.get("weight"), given.get("bias")
        if weight is None or bias is None:
            return x
        weight_name, bias_name = self.name(weight), self.name(bias)

        def backward(slope: Tensor) -> Iterator[tuple[str, Tensor]]:
            flat = lambda of: of.reshape(*of.shape[:2], -1).unflatten(0, (self.rows, -1))
            d, a = flat(slope), flat(x)
            if weight_name is not None:
                yield weight_name, (d * a).sum(dim=(1, 3))
            if bias_name is not None:
                yield bias_name, d.sum(dim=(1, 3))

        spread = (-1, *(1,) * (x.ndim - 2))
        out = self._tap(x * weight.view(spread) + bias.view(spread), backward)
        return out.clone()  # torchvision adds the shortcut to it in place


class OwnLayers(_Layers):
    """Layers run in groups: every row with its own weights."""

    def _linear(self, func: Any, given: dict[str, Any]) -> Tensor:  # noqa: ARG002
        x, weight, bias = given["input"], given["weight"], given.get("bias")
        weight, bias = self._row(weight), self._row(bias)
        a = x.reshape(self.rows, -1, x.shape[-1])
        out = torch.bmm(a, weight.transpose(1, 2))
        if bias is not None:
            out = out + bias.unsqueeze(1)
        return out.reshape(*x.shape[:-1], -1)

    def _conv(self, func: Any, given: dict[str, Any]) -> Tensor:
        x, weight, bias, stride, padding, dilation = _convolution(given)
        weight, bias = self._row(weight), self._row(bias)
        wide = x.unflatten(0, (self.rows, -1)).transpose(0, 1).flatten(1, 2)
        flat = None if bias is None else bias.flatten()
        out = func(wide, weight.flatten(0, 1), flat, stride, padding, dilation, self.rows)
        return out.unflatten(1, (self.rows, -1)).transpose(0, 1).flatten(0, 1)

    def _norm(self, func: Any, given: dict[str, Any]) -> Tensor:
        x, weight, bias = super()._norm(func, given), given.get("weight"), given.get("bias")
        if weight is None or bias is None:
            return x
        spread = (self.rows, 1, -1, *(1,) * (x.ndim - 2))
        out = x.unflatten(0, (self.rows, -1)) * self._row(weight).view(spread)
        return (out + self._row(bias).view(spread)).flatten(0, 1)

    def _row(self, value: Any) -> Any:
        """Return a parameter of every row; one that is not trained is the same for all."""
        if value is None or id(value) in self.names:
            return value
        return value.expand(self.rows, *value.shape)


def _convolution(given: dict[str, Any]) -> tuple[Any, ...]:
    """Return a convolution's arguments as numbers."""
    if given.get("groups", 1) != 1 or isinstance(given.get("padding", 0), str):
        raise NotLayeredError
    pair = lambda v: tuple(v) if isinstance(v, tuple | list) else (v, v)
    numbers = (pair(given.get(n, d)) for n, d in (("stride", 1), ("padding", 0), ("dilation", 1)))
    return given["input"], given["weight"], given.get("bias"), *numbers


_SIGNATURES: dict[Any, tuple[str, tuple[str, ...]]] = {
    functional.linear: ("_linear", ("input", "weight", "bias")),
    torch.conv2d: (
        "_conv",
        ("input", "weight", "bias", "stride", "padding", "dilation", "groups"),
    ),
    functional.group_norm: ("_norm", ("input", "num_groups", "weight", "bias", "eps")),
    functional.batch_norm: (
        "_norm",
        ("input", "running_mean", "running_var", "weight", "bias", "training", "momentum", "eps"),
    ),
}
