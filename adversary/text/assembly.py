"""Texts from the tokens that stood at each position, by what the model sent finds likely."""

import itertools
from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

SCORES = 1200  # gradients of texts that a refinement computes, at most
MANY = 8  # texts from which on it computes none: too few exchanges could be tried
AGAIN = 4.0  # nats that a token costs which another text at this position uses already


def one_text(choices: Sequence[Sequence[int]]) -> tuple[int, ...]:
    """Return the likeliest token of each position, up to the first without any.

    Args:
        choices: Tokens of each position, the likeliest first.
    """
    text: list[int] = []
    for tokens in choices:
        if not tokens:
            break
        text.append(tokens[0])
    return tuple(text)


def several_texts(
    model: nn.Module, choices: Sequence[Sequence[int]], count: int, end: int
) -> list[tuple[int, ...]]:
    """Return texts that use the tokens of each position, each text by its own likelihood.

    Position by position, tokens are assigned to texts by the Hungarian method, with costs of
    −log p(token | text so far). A text may end instead, or share a token.

    Args:
        model: In evaluation mode; gives the logits of next tokens, (n, classes, positions).
        choices: Tokens of each position.
        count: Number of texts.
        end: The token that ends a text.
    """
    from scipy.optimize import linear_sum_assignment

    if not choices or not choices[0]:
        return []
    running = [[choices[0][0]] for _ in range(count)]
    done: list[list[int]] = []
    for tokens in choices[1:]:
        if not tokens or not running:
            break
        costs = _costs(_likelihoods(model, running), tokens, end)
        rows, columns = linear_sum_assignment(costs.numpy())
        ended: list[int] = []
        for row, column in zip(rows.tolist(), columns.tolist(), strict=True):
            if column < len(running) * len(tokens):
                running[row].append(tokens[column % len(tokens)])
            else:
                ended.append(row)
        done += [running[row] for row in ended]
        running = [text for row, text in enumerate(running) if row not in ended]
    return sorted((tuple(it) for it in [*done, *running]), key=len, reverse=True)


def refined(
    texts: Sequence[tuple[int, ...]], score: Callable[[Sequence[tuple[int, ...]]], float]
) -> list[tuple[int, ...]]:
    """Return texts after exchanges between two of them that raise a score, until none does.

    Two texts exchange all tokens from a position on, or the tokens at one position.

    Args:
        texts: Token ids.
        score: Of all texts together.
    """
    best, spent = [tuple(it) for it in texts], len(texts)
    if not 1 < len(best) < MANY:
        return best
    value, better = score(best), True
    while better:
        better = False
        for one, other in itertools.combinations(range(len(best)), 2):
            for place, whole in itertools.product(range(1, len(max(best, key=len))), (True, False)):
                swapped = _exchanged(best[one], best[other], place, whole=whole)
                if swapped is None or spent > SCORES:
                    continue
                changed = list(best)
                changed[one], changed[other] = swapped
                spent += len(best)
                if (reached := score(changed)) > value:
                    best, value, better = changed, reached, True
    return best


def _exchanged(
    one: tuple[int, ...], other: tuple[int, ...], place: int, *, whole: bool
) -> tuple[tuple[int, ...], tuple[int, ...]] | None:
    """Return two texts after an exchange at a position; None where it changes nothing."""
    stop = None if whole else place + 1
    left, right = one[place:stop], other[place:stop]
    if place > min(len(one), len(other)) or left == right or (not whole and not (left and right)):
        return None
    rest = (lambda _: ()) if whole else (lambda text: text[place + 1 :])
    swapped = one[:place] + right + rest(one), other[:place] + left + rest(other)
    return None if set(swapped) == {one, other} else swapped


def _costs(
    likelihoods: Float[Tensor, "texts classes"], tokens: Sequence[int], end: int
) -> Float[Tensor, "texts columns"]:
    """Return what each text pays for each token once, for each again, and for its end."""
    count = len(likelihoods)
    once = -likelihoods[:, list(tokens)]
    stop = -likelihoods[:, end : end + 1].expand(-1, count)
    # What must be used comes first: to leave a token out costs more than any other choice.
    least = float(once.max()) + float(stop.max()) + AGAIN
    again = (once + AGAIN).repeat(1, count - 1)
    return torch.cat([once - least, again, stop], dim=1)


def _likelihoods(
    model: nn.Module, texts: Sequence[Sequence[int]]
) -> Float[Tensor, "texts classes"]:
    with torch.no_grad():
        return functional.log_softmax(model(torch.tensor(texts))[:, :, -1].double(), dim=1)
