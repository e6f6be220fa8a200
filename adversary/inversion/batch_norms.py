"""What is known of the inputs of batch norms: an uploaded model has the statistics of its batches.

H. Yin, A. Mallya, A. Vahdat, J. M. Alvarez, J. Kautz, P. Molchanov, "See through Gradients: Image
Batch Recovery via GradInversion", CVPR 2021: guesses whose features have the running mean and
variance of the model. A client that uploads its buffers gives away more. After k steps of momentum
m its running mean is (1 − m)ᵏ of the one sent and for the rest that of its batches: the mean and
the variance of each channel over the batch follow.
"""

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor, nn

from adversary.inversion.rows import Statistics
from adversary.steps import num_steps
from fedsim.core.types import Observation

LEAST = 1e-5  # added to variances


def statistics_of(model: nn.Module, observation: Observation) -> Statistics | None:
    """Return mean and unbiased variance of the inputs of batch norms, as the server knows them.

    Of uploaded buffers those of the client's batches; else the running ones of the model sent, once
    it has any. None where there are none.

    Args:
        model: The architecture.
        observation: The upload.
    """
    estimated: Statistics = {}
    delta, sent, local = observation.update.delta, observation.sent, observation.local
    for name, module in model.named_modules():
        key = f"{name}." if name else ""
        if not isinstance(module, nn.modules.batchnorm._BatchNorm) or module.running_mean is None:
            continue
        running = [f"{key}running_mean", f"{key}running_var"]
        uploaded = local.upload == "weights" and all(it in delta for it in running)
        if uploaded and module.momentum and any(bool(delta[it].any()) for it in running):
            kept = (1 - module.momentum) ** num_steps(observation)
            mean, variance = (sent[it] + delta[it] / (1 - kept) for it in running)
        elif int(sent.get(f"{key}num_batches_tracked", torch.tensor(0))):
            mean, variance = (sent[it] for it in running)
        else:
            continue
        if bool(torch.isfinite(mean).all()) and bool(torch.isfinite(variance).all()):
            estimated[name] = mean, variance.clamp(min=0)
    return estimated or None


def unlikeness(
    statistics: Mapping[str, tuple[Tensor, Tensor]], estimated: Statistics
) -> Float[Tensor, " rows"]:
    """Return how far means and standard deviations are from what is known, in the latter's unit.

    It is the mean square over channels, and the mean of that over the layers.

    Args:
        statistics: Of guesses, (rows, channels) each.
        estimated: Of the client, (channels,) each; of these the layers that guesses have.
    """
    parts = []
    for name, (mean, variance) in estimated.items():
        if name not in statistics:
            continue
        means, variances = statistics[name]
        unit = (variance.to(means.dtype) + LEAST).sqrt()
        off = (means - mean.to(means.dtype)) / unit
        wide = (variances + LEAST).sqrt() / unit - 1
        parts.append(off.square().mean(dim=1) + wide.square().mean(dim=1))
    if not parts:
        raise ValueError("statistics: must have a batch norm of which something is known, got none")
    return torch.stack(parts).mean(dim=0)
