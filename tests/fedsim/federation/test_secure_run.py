"""A whole run under simulated secure aggregation."""

import math
import shutil

import pytest
import torch
from torch import nn

from adversary.attacks import ATTACKS
from adversary.grading.selection import kinds_of
from fedsim import api
from fedsim.config import Part, dump, parse, read
from fedsim.core.errors import ConfigError, RunStopped
from fedsim.core.groups import groups_in
from fedsim.core.truths import save_shared, shared_path
from fedsim.run.prepare import prepare
from fedsim.run.run_folder import RunFolder
from fedsim.run.truth import truth_of
from strategies.tape import members_of, recorded_clients
from tests.builders import rows_without_seconds, same_params, small_config

pytestmark = pytest.mark.usefixtures("undrawn")

ON = {"rounds": 3, "clients": 4, "secure_aggregation": True}
LABELS = ("llg", "llbg", "eb-gls", "random")


def attacks(names):
    return [{"name": name} for name in names]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """The same run in clear and behind secure aggregation; not to be written to."""
    folder = tmp_path_factory.mktemp("secure")
    for name, federation in (("clear", {**ON, "secure_aggregation": False}), ("secure", ON)):
        asked = small_config(federation=federation, attack=attacks(LABELS))
        api.run(asked, folder / name)
    return folder


def test_the_tape_holds_one_cohort_a_round_and_no_clients_upload(runs):
    for round_ in (1, 2, 3):
        [name] = recorded_clients(runs / "secure", round_)
        assert members_of(runs / "secure", round_, name) == ("0", "1", "2", "3")
        names = {path.name for path in (runs / "secure" / "rounds" / f"{round_:04d}").iterdir()}
        assert names == {"files.json", "sent.safetensors", "uploads.safetensors"}
    assert len(recorded_clients(runs / "clear", 1)) == 4


def test_the_model_learns_as_it_does_in_clear(runs):
    states = [RunFolder(runs / name).final_params() for name in ("clear", "secure")]
    for key, value in states[0].items():
        assert torch.allclose(value, states[1][key], atol=1e-4)
    assert not same_params(*states)  # it is rounded


def test_the_cohort_is_attacked_and_graded_by_all_its_clients_labels(runs):
    ledger = api.Run(runs / "secure").ledger().to_pylist()
    [cohort] = {row["client"] for row in ledger}
    folder = RunFolder(runs / "secure")
    truth = truth_of(folder, 1, cohort)
    own = [truth_of(folder, 1, str(client)) for client in range(4)]
    assert torch.equal(truth.labels, torch.cat([one.labels for one in own]))
    counts = folder.guesses(1)[f"llbg/{cohort}"]
    assert int(counts.sum()) == len(truth.labels)
    asr = {
        (row["attack"], row["round"]): (row["value"], row["blind"])
        for row in ledger
        if row["metric"] == "asr"
    }
    assert len(asr) == 3 * len(LABELS)
    value, blind = asr["llbg", 1]
    assert value > blind
    page = (runs / "secure" / "report.html").read_text()
    assert f"True and inferred labels of client {cohort}" in page
    assert "secure aggregation (at least 67 % remain)" in page
    assert "secure aggregation (at" not in (runs / "clear" / "report.html").read_text()


def test_a_cohort_lacking_one_clients_truth_is_attacked_and_not_graded(runs, tmp_path):
    target = tmp_path / "run"
    shutil.copytree(runs / "secure" / "rounds", target / "rounds")
    (target / "config.toml").write_text((runs / "secure" / "config.toml").read_text())
    for round_ in (1, 2, 3):
        truths = groups_in(shared_path(runs / "secure" / "truth", round_))
        kept = [client for client in truths if (round_, client) != (2, "3")]
        save_shared(target / "truth", round_, {it: (dict(truths[it]), {}) for it in kept})
    table = api.attack(target, [Part(name="llbg")]).to_pylist()
    graded = {row["round"]: row["value"] is not None for row in table if row["metric"] == "asr"}
    assert graded == {1: True, 2: False, 3: True}


def test_every_attack_runs_on_a_sum_or_says_in_one_sentence_why_not(tmp_path):
    # The first four need a secret column, the last a second round; one takes tables alone.
    unasked = {"attribute", "property", "distribution", "user", "linkage"}
    names = [
        name for name, attack in ATTACKS.items()
        if attack.family not in unasked and "values" in kinds_of(attack)
        and "schema" not in attack.needs
    ]  # fmt: skip
    asked = small_config(
        federation={**ON, "rounds": 1}, auxiliary={"share": 0.3, "candidates": 30},
        attack=attacks(names),
    )  # fmt: skip
    run = api.run(asked, tmp_path / "run")
    answered = {
        row["attack"]
        for row in run.ledger().to_pylist()
        if row["client"] is not None and row["value"] is not None
    }
    reasons = {
        row["metric"].removesuffix("_refused"): row["reason"]
        for row in run.metrics().to_pylist()
        if row["metric"].endswith("_refused")
    }
    assert answered | set(reasons) == set(names)
    assert not answered & set(reasons)
    for name, reason in reasons.items():
        if ATTACKS[name].family in ("reconstruction", "source", "usage"):
            assert reason.startswith("num_clients: must be 1 to "), (name, reason)
            assert reason.endswith(", got 4")
        else:
            assert "the round must have at least 3 clients, got 1" in reason, (name, reason)
    kept = {name for name in names if ATTACKS[name].family == "label"}
    assert kept <= answered
    assert {"cosine-mia", "whitened-mia-full", "update-lira"} <= answered


def test_rehearsing_attacks_on_secrets_say_why_not(tmp_path):
    asked = parse({
        "federation": {**ON, "rounds": 1},
        "data": {"name": "tests.fedsim.federation.test_secure_run:with_secret", "partition": "iid"},
        "model": {"name": "mlp", "hidden": 8}, "local": {"epochs": 1},
        "auxiliary": {"share": 0.5, "overlap": 1.0}, "game": {"column": "user", "value": "1"},
        "attack": attacks(("pia", "dia")),
    })  # fmt: skip
    rows = api.run(asked, tmp_path / "run").metrics().to_pylist()
    reasons = {row["metric"]: row["reason"] for row in rows if row["metric"].endswith("_refused")}
    said = "num_clients: must be 1 to compare it with rehearsed clients, got 4"
    assert reasons == {"pia_refused": said, "dia_refused": said}


def with_secret(root):
    from tests.builders import toy_dataset

    return toy_dataset(root, size=120)


def test_a_resumed_run_ends_with_the_same_bits(tmp_path):
    config = small_config(
        federation={**ON, "per_round": 3}, attack=attacks(("llbg",)),
        defense=[{"name": "clip", "bound": 1.0}, {"name": "gaussian", "std": 0.1}],
    )  # fmt: skip
    straight = api.run(config, tmp_path / "straight")

    class Stop(Exception):
        pass

    def stop(told):
        if told.number == 2:
            raise Stop

    with pytest.raises(Stop):
        api.run(config, tmp_path / "stopped", on_round=stop)
    resumed = api.resume(tmp_path / "stopped")
    assert same_params(*(RunFolder(it.path).final_params() for it in (straight, resumed)))
    assert rows_without_seconds(straight.ledger()) == rows_without_seconds(resumed.ledger())
    told = [row for row in resumed.metrics().to_pylist() if row["metric"] == "epsilon"]
    # ε is of the clients, not of cohorts, and grows with the rounds that each took part in.
    assert {row["client"] for row in told} <= {"0", "1", "2", "3"}
    summed = [row for row in resumed.metrics().to_pylist() if row["metric"] == "summed"]
    assert len(summed) == 3 * 3
    taken = {c: sum(row["client"] == c for row in summed) for c in "0123"}
    last = {row["client"]: row["value"] for row in told if row["round"] == 3}
    assert set(last) == {client for client, rounds in taken.items() if rounds}
    most, least = max(last, key=lambda c: taken[c]), min(last, key=lambda c: taken[c])
    assert last[most] >= last[least]
    theirs = [row for row in straight.metrics().to_pylist() if row["metric"] == "epsilon"]
    assert theirs == told


REFUSED = {
    "krum": ({"strategy": "krum"}, "federation.secure_aggregation: must go with a strategy of the"),
    "median": ({"strategy": "fedmedian"}, "got FedMedian, which needs single uploads"),
    "few examples": (
        {"secure_aggregation": {"max_examples": 3}},
        r"federation.secure_aggregation.max_examples: must be at least the largest client's \d+, "
        "got 3",
    ),
    "bits": (
        {"secure_aggregation": {"modulus_bits": 16}},
        "secure_aggregation.modulus_bits: must hold .*, got 16",
    ),
}


def counting(input_shape, num_classes):
    """Batch normalisation counts its batches in a buffer."""
    size = math.prod(input_shape)
    return nn.Sequential(nn.Flatten(), nn.BatchNorm1d(size), nn.Linear(size, num_classes))


def test_a_counter_that_no_clip_bounds_is_refused(tmp_path):
    model = {"name": "tests.fedsim.federation.test_secure_run:counting"}
    with pytest.raises(ConfigError, match="a model without counters, .* got 1.num_batches_tracked"):
        api.run(small_config(model=model, federation=ON), tmp_path / "run")


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_go_with_it_is_refused_before_anything_is_written(case, tmp_path):
    changes, sentence = REFUSED[case]
    with pytest.raises(ConfigError, match=sentence):
        api.run(small_config(federation={**ON, **changes}), tmp_path / "run")
    assert not (tmp_path / "run").exists()


WRONG = {
    "one": (["federation.per_round=1"], "must have at least 2 clients per round, got 1"),
    "threshold": (
        ["federation.secure_aggregation.threshold=0.5"],
        "secure_aggregation.threshold: input should be greater than 0.5, got 0.5",
    ),
    "odd": (
        ["federation.secure_aggregation.neighbours=3"],
        "neighbours: input should be a multiple of 2, got 3",
    ),
    "word": (["federation.secure_aggregation=yes"], "secure_aggregation: .*got 'yes'"),
    "key": (
        ["federation.secure_aggregation={treshold = 1.0}"],
        "treshold: must be a known key; did you mean 'threshold'?",
    ),
    "clients": (['record.clients=["0"]'], r"record.clients: must be left out .*got \['0'\]"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_setting_is_one_sentence(case):
    settings, sentence = WRONG[case]
    switch = [] if "secure_aggregation" in settings[0] else ["federation.secure_aggregation=true"]
    with pytest.raises(ConfigError, match=sentence):
        read(None, [*switch, *settings])


def test_attacks_on_some_clients_are_refused():
    chosen = small_config(federation=ON, attack=[{"name": "llg", "clients": ["0"]}])
    with pytest.raises(ConfigError, match=r"attack.llg.clients: must be left out .*got \['0'\]"):
        prepare(chosen)


def test_true_is_the_defaults_and_false_is_off():
    on = read(None, ["federation.secure_aggregation=true"]).federation.secure_aggregation
    assert (on.threshold, on.modulus_bits) == (2 / 3, 48)
    assert read(None, ["federation.secure_aggregation=false"]).federation.secure_aggregation is None
    asked = read(None, ["federation.secure_aggregation.clip=2.0"])
    assert asked.federation.secure_aggregation.clip == 2.0
    text = dump(asked)
    assert "[federation.secure_aggregation]" in text
    assert "secure_aggregation" not in dump(read(None))


def test_weights_out_of_range_end_the_run_with_the_clients_sentence(tmp_path):
    tight = {**ON, "secure_aggregation": {"clip": 0.01}}
    said = r"round 1: .*must remain.*got 0; client .*: must lie within ± .*clip = 0.01, got"
    with pytest.raises(RunStopped, match=said):
        api.run(small_config(federation=tight), tmp_path / "run")
    assert not (tmp_path / "run").exists()
