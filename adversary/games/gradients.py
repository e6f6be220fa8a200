"""Gradients of many batches at once: the shadow gradients of an adversary.

For fully connected layers and convolutions the gradient of a batch is a product of what goes in
and what comes back, so that all batches go through the model together and one batched product per
layer gives every batch's own gradient. Other models take `torch.func.vmap` over whole batches.
"""

import copy
import warnings
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int, Num
from torch import Tensor, nn
from torch.autograd.graph import get_gradient_edge
from torch.nn import functional

from fedsim.core import devices
from fedsim.core.attention import plain_attention
from fedsim.core.examples import flat_rows
from fedsim.core.types import Params

RECORDS = 8192  # that go through the model together
PARAMETERS = 2**18  # entries of all gradients of a chunk: they stay in the cache,
MOST, SHARE = 2**27, 1 / 16  # which an accelerator needs not: half a gigabyte, or of what is free


def batch_gradients(
    model: nn.Module,
    state: Params,
    inputs: Num[Tensor, "n batch *shape"],
    labels: Int[Tensor, "n batch *target"],
    *,
    smoothing: float = 0.0,
    reduce: "Reading | None" = None,
) -> Float[Tensor, "n features"]:
    """Return the gradient of every batch's mean cross-entropy, flat, in `state_dict` order.

    Args:
        model: The architecture; its own weights are left alone. Evaluated as in training, without
            dropout and with the batch's own statistics where it has batch normalisation.
        state: Where the gradients are taken.
        inputs: n batches of as many records each.
        labels: Theirs; of a language model the next tokens.
        smoothing: Label smoothing of the loss.
        reduce: Makes features of a chunk of flat gradients, so that they need not all be held.
    """
    working = copy.deepcopy(model).eval()
    working.load_state_dict(dict(state))
    trained = {n: v for n, v in working.named_parameters() if v.requires_grad}
    size = sum(value.numel() for value in trained.values())
    chunk = max(1, min(RECORDS // max(1, inputs.shape[1]), entries_at_once() // max(1, size)))
    if inputs.is_floating_point():
        inputs = inputs.to(next(iter(trained.values())).dtype)
    take = _by_layer if _layers(working, trained) is not None else _by_batch
    features = torch.empty(len(labels), size if reduce is None else reduce.cells)
    parts = zip(features.split(chunk), inputs.split(chunk), labels.split(chunk), strict=True)
    for into, x, y in parts:
        flat = take(working, trained, x, y, smoothing)
        into.copy_(flat if reduce is None else reduce(flat))
    return features


def entries_at_once() -> int:
    """Return how many entries of gradients are computed at a time, where arithmetic runs."""
    free = devices.free_memory(devices.here())
    return PARAMETERS if free is None else max(1, min(MOST, int(SHARE * free / 4)))


@runtime_checkable
class Reading(Protocol):
    """Makes features of flat gradients, (n, size) → (n, cells)."""

    cells: int

    def __call__(self, flat: Float[Tensor, "n size"]) -> Float[Tensor, "n cells"]:
        """Return the features."""
        ...


def _layers(model: nn.Module, trained: Params) -> list[tuple[str, nn.Module]] | None:
    """Return the layers with all trained parameters, if each is linear or a plain convolution."""
    layers, held = [], set[str]()
    if len(list(model.named_parameters(remove_duplicate=False))) > len(list(model.parameters())):
        return None  # one tensor in two layers
    for name, module in model.named_modules():
        keys = [
            f"{name}.{key}" if name else key for key, _ in module.named_parameters(recurse=False)
        ]
        keys = [key for key in keys if key in trained]
        if not keys:
            continue
        plain_convolution = isinstance(module, nn.Conv2d) and (
            module.groups == 1
            and module.padding_mode == "zeros"
            and not isinstance(module.padding, str)
        )
        if not (type(module) is nn.Linear or (type(module) is nn.Conv2d and plain_convolution)):
            return None
        held |= set(keys)
        layers.append((name, module))
    mixes = any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in model.modules())
    return layers if held == set(trained) and not mixes else None


def _by_layer(
    model: nn.Module, trained: Params, inputs: Tensor, labels: Tensor, smoothing: float
) -> Tensor:
    layers, passes = _layers(model, trained) or [], {}

    def watch(name: str) -> Any:
        def hook(_: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
            # Not the output itself, which a ReLU in place would write over.
            edge = get_gradient_edge(output) if output.requires_grad else None
            passes.setdefault(name, []).append((args[0].detach(), edge))

        return hook

    handles = [module.register_forward_hook(watch(name)) for name, module in layers]
    try:
        logits = model(inputs.flatten(0, 1))
    finally:
        for handle in handles:
            handle.remove()
    count, batch = labels.shape
    once = all(len(passes.get(name, ())) == 1 for name, _ in layers)  # not twice, not never
    if not once or any(len(x) != count * batch or edge is None for [(x, edge)] in passes.values()):
        return _by_batch(model, trained, inputs, labels, smoothing)
    loss = functional.cross_entropy(
        logits, labels.flatten(), reduction="sum", label_smoothing=smoothing
    )
    edges = [passes[name][0][1] for name, _ in layers]
    returned = torch.autograd.grad(loss / batch, edges, allow_unused=True)
    if any(back is None for back in returned):  # a layer that the loss does not hang on
        return _by_batch(model, trained, inputs, labels, smoothing)
    gradients: dict[str, Tensor] = {}
    for (name, module), back in zip(layers, returned, strict=True):
        entered = passes[name][0][0]
        if isinstance(module, nn.Conv2d):
            entered = _patches(module, entered)
            back = back.flatten(2).transpose(1, 2)  # noqa: PLW2901
        entered = entered.reshape(count, -1, entered.shape[-1])
        back = back.reshape(count, -1, back.shape[-1])  # noqa: PLW2901
        prefix = f"{name}." if name else ""
        gradients[f"{prefix}weight"] = torch.bmm(back.transpose(1, 2), entered).flatten(1)
        gradients[f"{prefix}bias"] = back.sum(dim=1)
    return torch.cat([gradients[name] for name in trained], dim=1)


def _patches(layer: nn.Conv2d, entered: Tensor) -> Tensor:
    """Return what each place of the output sees of the input, (n, places, entries)."""
    # Numbers, since a padding in words is refused above.
    window: Any = (layer.kernel_size, layer.dilation, layer.padding, layer.stride)
    return functional.unfold(entered, *window).transpose(1, 2)


def _by_batch(
    model: nn.Module, trained: Params, inputs: Tensor, labels: Tensor, smoothing: float
) -> Tensor:
    from torch.func import functional_call, grad, vmap

    parameters = {name: value.detach() for name, value in trained.items()}
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.train()
            module.track_running_stats, module.running_mean, module.running_var = False, None, None

    def loss(values: dict[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
        return functional.cross_entropy(
            functional_call(model, values, (x,)), y, label_smoothing=smoothing
        )

    def alone(x: Tensor, y: Tensor) -> tuple[Tensor, ...]:
        leaves = {name: value.clone().requires_grad_() for name, value in parameters.items()}
        with torch.enable_grad():
            return torch.autograd.grad(
                loss(leaves, x, y), list(leaves.values()), materialize_grads=True
            )

    with plain_attention(), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # PyTorch's: a function is looped over
        try:
            gradients = vmap(grad(loss), in_dims=(None, 0, 0))(parameters, inputs, labels)
            parts = [gradients[name] for name in trained]
        except RuntimeError:  # a layer that takes no batch of batches, such as nn.GRU
            rows = [alone(x, y) for x, y in zip(inputs, labels, strict=True)]
            parts = [torch.stack(each) for each in zip(*rows, strict=True)]
    return torch.cat([flat_rows(part) for part in parts], dim=1)
