"""How often rounds are read: what an attack made of an earlier one is kept."""

from collections import Counter

from adversary.grading.truth import read_truth, read_truths
from fedsim import api
from fedsim.core.groups import Group
from fedsim.federation.attack_pool import _attacked
from fedsim.run.prepare import prepare
from fedsim.run.run_folder import RunFolder
from strategies.tape_views import _Cohort
from tests.builders import small_config

ATTACKS = "cosine-mia-rounds,fedmia-rounds,eb-gls-rounds"


def config(attack=ATTACKS):
    return small_config(
        attack=attack,
        data={"name": "tests.benchmarks.growth:toy", "limit": 60},
        model={"name": "mlp", "hidden": 8},
        federation={"rounds": 6, "clients": 3, "evaluate_every": 0},
        local={"epochs": 1, "batch_size": 10},
        auxiliary={"share": 0.4, "candidates": 20},
    )  # fmt: skip


def counted(monkeypatch):
    """Count the uploads and the truths that are opened, by round."""
    opened, truths = Counter(), Counter()
    whole, one, some = _Cohort.open, read_truth, read_truths

    def open_(cohort, client):
        opened[cohort.round] += 1
        return whole(cohort, client)

    def truth(folder, round_, client, **limits):
        truths[round_] += 1
        return one(folder, round_, client, **limits)

    def all_(folder, round_, clients, **limits):
        truths[round_] += len(clients)
        return some(folder, round_, clients, **limits)

    monkeypatch.setattr(_Cohort, "open", open_)
    monkeypatch.setattr("fedsim.run.truth.read_truth", truth)
    monkeypatch.setattr("fedsim.run.truth.read_truths", all_)
    return opened, truths


def answers(attacked):
    return {name: guess.tolist() for name, guess in attacked.guesses.items()}


def test_an_earlier_round_is_not_read_again_in_every_round(tmp_path, monkeypatch, undrawn):
    run = api.run(config("llg"), tmp_path / "run")
    plan, folder = prepare(config()), RunFolder(run.path)
    opened, truths = counted(monkeypatch)
    reads, stepwise = [], None
    for round_ in range(1, 7):
        opened.clear()
        truths.clear()
        stepwise = _attacked(plan, folder, round_)
        reads.append((
            {round_ - number: count for number, count in opened.items()},
            {round_ - number: count for number, count in truths.items()},
        ))  # fmt: skip
    assert reads[3] == reads[4] == reads[5]
    assert max(reads[5][0]) <= 1  # at most the round before, however many there are
    assert set(reads[5][1]) == {0}
    assert stepwise is not None
    opened.clear()
    resumed = _attacked(prepare(config()), folder, 6)
    assert answers(resumed) == answers(stepwise)
    assert resumed.leaks == [
        leak.__class__(**{**vars(leak), "seconds": other.seconds})
        for leak, other in zip(stepwise.leaks, resumed.leaks, strict=True)
    ]
    assert set(opened) == set(range(1, 7))
    assert max(opened.values()) <= 3 * len(ATTACKS.split(",")) * 3


def test_uploads_without_names_are_not_read_again_in_every_round(tmp_path, monkeypatch):
    attack = "linkage-whitened-rounds,linkage-cosine"
    run = api.run(config("llg"), tmp_path / "run")
    plan, folder = prepare(config(attack)), RunFolder(run.path)
    reads, read = Counter(), Group.__getitem__

    def counting(group, name):
        reads[group.path.split("rounds/")[-1][:4]] += "rounds" in group.path
        return read(group, name)

    monkeypatch.setattr(Group, "__getitem__", counting)
    stepwise = None
    for round_ in range(1, 7):
        reads.clear()
        stepwise = _attacked(plan, folder, round_)
        assert round_ < 3 or {name for name, count in reads.items() if count} == {f"{round_:04d}"}
    assert stepwise is not None
    assert answers(_attacked(prepare(config(attack)), folder, 6)) == answers(stepwise)
    assert {name for name, count in reads.items() if count} == {f"{k:04d}" for k in range(1, 7)}
