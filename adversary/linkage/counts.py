"""Label counts as evidence that two uploads are of one client."""

import torch
from jaxtyping import Float
from torch import Tensor

EVIDENCE = (
    64.0  # labels that an upload's shares count as: read counts are off, and depend on others
)
ROWS = 64  # of pairs compared at a time


def precision(shares: Float[Tensor, "n classes"]) -> Float[Tensor, " classes"]:
    """Return the Dirichlet distribution of clients' shares of classes, by its two moments.

    Its mean is theirs, drawn towards even shares; its sum fits the sum of their variances.
    """
    mean = (shares.sum(dim=0) + 1 / shares.shape[1]) / (shares.sum() + 1)
    spread = shares.var(dim=0, correction=0).sum().clamp(min=1e-6)
    total = (mean * (1 - mean)).sum() / spread - 1
    return mean * total.clamp(0.1, 1e4)


def evidence(shares: Float[Tensor, "n classes"]) -> Float[Tensor, "n n"]:
    """Return log p(both uploads | one client) − log p(both | two clients) of every pair, in nats.

    A client's distribution of labels is drawn from a Dirichlet distribution, and each upload's
    labels from the client's: of counts a and b with B(α) = ∏Γ(α_c) / Γ(Σα_c), this is
    log B(α + a + b) + log B(α) − log B(α + a) − log B(α + b).

    Args:
        shares: Of classes in each upload; zeros for one that says nothing, whose scores are 0.
    """
    counts, alpha = EVIDENCE * shares, precision(shares[shares.sum(dim=1) > 0])
    alone, none = _log_beta(alpha + counts), _log_beta(alpha)
    parts = [
        _log_beta(alpha + some.unsqueeze(1) + counts) + none - total.unsqueeze(1) - alone
        for some, total in zip(counts.split(ROWS), alone.split(ROWS), strict=True)
    ]
    return torch.cat(parts)


def _log_beta(alpha: Float[Tensor, "*n classes"]) -> Float[Tensor, " *n"]:
    return torch.lgamma(alpha).sum(dim=-1) - torch.lgamma(alpha.sum(dim=-1))
