import copy
from dataclasses import replace

import pytest
import torch
from torch import nn

from adversary.members import in_training
from adversary.members.candidates import cosines, gradient_norms, gradients, slopes
from adversary.members.scores import within_classes
from adversary.rehearsal import rehearse_with
from adversary.workspace import undefended
from defenses import Defense, dp_sgd, mixup, vib
from fedsim.core.rng import generator, global_stream
from fedsim.core.sgd import mean_gradient
from fedsim.core.types import LocalTraining, Observation, Update
from fedsim.models import Bottleneck
from tests.adversary import member_cases as cases
from tests.builders import work_at

OWN = cases.own_gradients(cases.MODEL, *(part[:12] for part in (cases.RECORDS, cases.LABELS)))
FEW = replace(
    cases.KNOWN,
    candidates=replace(cases.CANDIDATES, inputs=cases.RECORDS[:12], labels=cases.LABELS[:12]),
)


def knowing(defense, local=cases.GRADIENT):
    return work_at(replace(FEW, defense=defense), cases.SENT, local)


def rows(work):
    return torch.stack([cases.flat(Update(1, "", part, None)) for part in gradients(work)])


@pytest.mark.parametrize("local", [cases.GRADIENT, cases.WEIGHTS, LocalTraining(0.1, 1)])
def test_training_as_usual_adds_a_record_s_own_gradient(local):
    plain = knowing(Defense(name="plain", gradient=mean_gradient), local)
    torch.testing.assert_close(rows(plain), OWN, rtol=1e-3, atol=1e-5)
    assert plain.part(in_training._coins, keep=4) == 1


def test_a_record_is_clipped_by_itself_and_noise_cancels():
    clipped = OWN * (2.5 / OWN.norm(dim=1, keepdim=True)).clamp(max=1.0)
    assert 0 < int((OWN.norm(dim=1) > 2.5).sum()) < len(OWN)
    work = knowing(dp_sgd(clip=2.5, noise=4.0, sampling="shuffle"))
    torch.testing.assert_close(rows(work), clipped, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(gradient_norms(work), clipped.norm(dim=1), rtol=1e-3, atol=1e-4)
    direction = {n: torch.randn(v.shape, generator=generator(0, n)) for n, v in cases.SENT.items()}
    along = clipped @ cases.flat(Update(1, "", direction, None))
    torch.testing.assert_close(slopes(work, direction), along, rtol=1e-3, atol=1e-3)


def test_coins_are_averaged():
    work = knowing(mixup(alpha=1.0))
    assert work.part(in_training._coins, keep=4) == in_training.COINS
    torch.testing.assert_close(rows(work), rows(knowing(mixup(alpha=1.0))))


def test_parts_too_large_to_hold_keep_their_inner_products(monkeypatch):
    plain = Defense(name="plain", gradient=mean_gradient)
    monkeypatch.setattr(in_training, "ENTRIES", 12 * 90)  # of 195 entries each
    found = knowing(plain).part(in_training.rows)
    assert found.values.shape[1] <= 90
    direction = {n: OWN[0].float()[a:b].view_as(v) for (n, v), a, b in places()}
    expected = float(OWN[0].square().sum())
    assert float(found.along(direction)[0]) == pytest.approx(expected, rel=0.3)


def places():
    start = 0
    for name, value in cases.SENT.items():
        yield (name, value), start, start + value.numel()
        start += value.numel()


def test_the_price_of_a_bottleneck_is_in_the_hypotheses():
    """At β = 50 what a record adds is the price of its code, and next to nothing of its loss."""
    with global_stream(0, "vib"):
        model = nn.Sequential(nn.Linear(4, 24), nn.ReLU(), Bottleneck(24, 16), nn.Linear(16, 3))
    defense, local, values = vib(beta=50.0), cases.GRADIENT, []
    sent = {name: value.clone() for name, value in model.state_dict().items()}
    work = work_at(replace(cases.KNOWN, model=model, defense=defense), sent, local)
    for seed in range(10):
        mine = torch.randperm(100, generator=generator(seed, "vib"))[:2]
        like = Observation(sent, Update(1, "client", {}, 2), local)
        given = cases.RECORDS[mine], cases.LABELS[mine], generator(seed, "coins")
        upload = rehearse_with(like, copy.deepcopy(model).train(), *given, defense=defense)
        members = torch.isin(torch.arange(100), mine)
        values.append([
            within_classes(cosines(upload, ask), members, cases.LABELS[:100])["auroc"]
            for ask in (work, work.derived(undefended))
        ])  # fmt: skip
    adaptive, static = torch.tensor(values).mean(dim=0).tolist()
    assert adaptive > static + 0.1
