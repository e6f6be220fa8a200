import pytest
import torch
from flwr.app import ConfigRecord, Context, Message, RecordDict

from adversary.grading.truth import read_coins
from clients import carried
from fedsim import api, models
from fedsim.audit import round_scores
from fedsim.config import Part, to_json
from fedsim.core.errors import ConfigError
from fedsim.core.wire import ARRAYS, CONFIG, FEDSIM, METRICS, from_record, to_record
from fedsim.data import federate
from fedsim.federation.client_app import app
from fedsim.federation.flower_private import set_message_id
from fedsim.run.prepare import prepare
from fedsim.run.run_folder import RunFolder
from strategies.tape_views import observation
from tests.builders import grid_of, rows_without_seconds, same_params, small_config

pytestmark = [pytest.mark.usefixtures("undrawn"), pytest.mark.contract]

NOISED = [{"name": "clip", "bound": 0.1}, {"name": "gaussian", "std": 0.25}]
DP_SGD = [{"name": "dp-sgd", "noise": 1.0, "delta": 1e-3}]
MODULE = "tests.fedsim.audit.test_rounds:"


def audited(defense=NOISED, *, rounds=4, of=6, seed=0, **audit):
    return small_config(
        seed=seed, defense=defense, attack=[], data={"limit": 160, "partition": "iid"},
        federation={"rounds": rounds, "clients": of, "evaluate_every": rounds},
        audit={"clients": 4, **audit},
    )  # fmt: skip


def half_noise(*, std: float = 0.25):
    from dataclasses import replace

    from defenses import gaussian

    return replace(gaussian(std=std), apply=gaussian(std=std / 2).apply)


def bounds_of(run, round_):
    rows = run.ledger().to_pylist()
    return {
        row["attack"]: (row["value"], row["ceiling"])
        for row in rows
        if row["round"] == round_ and row["metric"] == "epsilon_lower"
    }


def reply_of(config, client=0, round_=1, **node):
    """Return what a client answers to a train message, its context, and what was sent."""
    grid_of(1, lambda client: None)  # Flower's messages want a run
    federated = federate(config)
    model = models.build(config.model, federated.dataset.form, seed=config.seed)
    content = RecordDict({
        ARRAYS: to_record(model.state_dict()),
        CONFIG: ConfigRecord({FEDSIM: to_json(config), "server-round": round_}),
    })  # fmt: skip
    message = Message(content, 7, "train")
    set_message_id(message, "1")
    context = Context(1, 7, {"partition-id": client, **node}, RecordDict(), {})
    return app(message, context), context, model.state_dict()


def update_of(config, **options):
    reply, _, sent = reply_of(config, **options)
    uploaded = from_record(reply.content.array_records[ARRAYS])
    return {name: uploaded[name] - sent[name] for name in sent}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    config = small_config(
        defense=NOISED, attack=["llg"], federation={"rounds": 4, "clients": 6},
        audit={"clients": 4, "every": 2},
    )  # fmt: skip
    return api.run(config, tmp_path_factory.mktemp("runs") / "run")


def test_every_second_round_and_the_last_is_audited(finished):
    rows = [row for row in finished.ledger().to_pylist() if row["family"] == "audit"]
    assert {row["round"] for row in rows} == {2, 4}
    assert {row["client"] for row in rows} == {None}
    assert {row["blind"] for row in rows} == {0.0}
    theory = [r for r in finished.metrics().to_pylist() if r["metric"] == "epsilon_theory"]
    assert [row["round"] for row in theory] == [2, 4]
    assert {row["ceiling"] for row in rows} == {row["value"] for row in theory}
    assert theory[0]["value"] < theory[1]["value"]


def test_theory_is_what_the_defense_promises_of_all_rounds(finished):
    plan = prepare(finished.config())
    promised = plan.defense.promise.epsilon(plan.local, 1, 4)
    assert bounds_of(finished, 4)["audit-mean"][1] == pytest.approx(promised)


def test_clients_that_carry_update_canaries_are_attacked_by_no_attack(finished):
    clients = {row["client"] for row in finished.ledger().to_pylist() if row["attack"] == "llg"}
    assert clients == {"4", "5"}
    truth = RunFolder(finished.path).truth
    assert read_coins(truth, 1, "4") is None
    coins = [read_coins(truth, round_, "0") for round_ in (1, 2, 3, 4)]
    assert all(torch.equal(coins[0], coin) for coin in coins)


def test_a_later_attack_keeps_the_audits_rows(finished):
    before = [row for row in finished.ledger().to_pylist() if row["family"] == "audit"]
    told = [row for row in finished.metrics().to_pylist() if row["split"] == "audit"]
    api.attack(finished.path, [Part(name="idlg")])
    assert [r for r in finished.ledger().to_pylist() if r["family"] == "audit"] == before
    assert [r for r in finished.metrics().to_pylist() if r["split"] == "audit"] == told
    assert not [row for row in api.means(finished.ledger()) if row["attack"].startswith("audit")]


def test_a_resumed_run_has_the_same_rows_once(tmp_path):
    def stop(told):
        if told.number == 2:
            raise KeyboardInterrupt

    whole = api.run(audited(), tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        api.run(audited(), tmp_path / "killed", on_round=stop)
    resumed = api.resume(tmp_path / "killed")
    assert rows_without_seconds(resumed.ledger()) == rows_without_seconds(whole.ledger())
    told = [
        [row for row in run.metrics().to_pylist() if row["split"] == "audit"]
        for run in (resumed, whole)
    ]
    assert told[0] == told[1]


@pytest.mark.parametrize(("defense", "rounds"), [(NOISED, 3), (DP_SGD, 2)])
def test_an_upload_is_read_once_however_many_rounds_are_audited(
    tmp_path, defense, rounds, monkeypatch
):
    opened = []
    counted = lambda *of: opened.append(of[1:3]) or observation(*of)
    config = audited(defense, rounds=rounds, clients=1)
    monkeypatch.setattr(round_scores, "observation", counted)
    once = api.run(config, tmp_path / "once").ledger()
    assert opened == [(round_, "0") for round_ in range(1, rounds + 1)]
    monkeypatch.setattr(round_scores, "LARGEST", 0)
    opened.clear()
    again = api.run(config, tmp_path / "again").ledger()
    assert len(opened) == rounds * (rounds + 1) / 2
    assert rows_without_seconds(again) == rows_without_seconds(once)


def test_an_honest_mechanism_is_not_refuted_and_half_its_noise_is(tmp_path):
    def run(name, links):
        config = audited(links, rounds=10, of=12, seed=3, clients=12, every=10)
        return bounds_of(api.run(config, tmp_path / name), 10)

    honest = run("honest", NOISED)
    assert all(value <= claimed for value, claimed in honest.values())
    value, claimed = honest["audit-mean"]
    assert value > claimed / 4
    half = run("half", [NOISED[0], {"name": MODULE + "half_noise", "std": 0.25}])
    assert half["audit-mean"][0] > half["audit-mean"][1] == pytest.approx(claimed)
    assert half["audit-mu-gdp"][0] > claimed
    assert all(half[name][0] <= claimed for name in ("audit-one-run", "audit-clopper-pearson"))


def test_without_their_coins_scores_have_no_value(tmp_path):
    import shutil

    from fedsim.audit.rounds import audit_round

    run = api.run(audited(rounds=3, every=3), tmp_path / "run")
    folder = RunFolder(run.path)
    shutil.rmtree(folder.truth)
    found = audit_round(prepare(folder.config), folder, 3)
    assert {leak.value for leak in found.leaks} == {None}
    assert set(found.scores) == {f"audit/{client}" for client in range(4)}


def test_record_canaries_are_in_the_batches_by_their_coins_alone(tmp_path):
    config = audited(DP_SGD, rounds=2, records=30, every=2)
    run = api.run(config, tmp_path / "run")
    assert set(bounds_of(run, 2)) == {"audit-one-run"}
    plan, folder = prepare(config), RunFolder(run.path)
    coins = read_coins(folder.truth, 1, "0")
    assert len(coins) == 30
    assert 0 < int(coins.sum()) < 30
    own = len(plan.federated.clients[0])
    epsilons = {
        row["client"]: row["value"]
        for row in run.metrics().to_pylist()
        if row["metric"] == "epsilon" and row["round"] == 2
    }
    assert epsilons["0"] == pytest.approx(plan.defense.promise.epsilon(plan.local, own + 30, 2))
    plain = len(plan.federated.clients[5])
    assert epsilons["5"] == pytest.approx(plan.defense.promise.epsilon(plan.local, plain, 2))


def test_no_number_of_examples_tells_the_coins():
    config = audited(DP_SGD, records=30)
    told = {
        seed: int(
            reply_of(config, simulated=True, seed=seed)[0].content.metric_records[METRICS][
                "num-examples"
            ]
        )
        for seed in (1, 2)
    }
    assert told[1] == told[2] == len(federate(config).clients[0]) + 30


def test_an_upload_is_the_canary_and_holds_no_coin(tmp_path):
    config = audited()
    updates = {seed: update_of(config, simulated=True, seed=seed) for seed in range(6)}
    like = next(iter(updates.values()))
    along = carried.direction(like, config.seed, "0")
    reply, _, sent = reply_of(config, simulated=True, seed=1)
    assert set(reply.content.array_records) == {ARRAYS}
    assert set(reply.content.array_records[ARRAYS]) == set(sent)
    assert set(reply.content.metric_records[METRICS]) == {"num-examples"}
    assert not reply.content.config_records
    quiet = audited([NOISED[0], {"name": "gaussian", "std": 1e-6}])
    sides = {
        round(sum(float((v * along[n]).sum()) for n, v in update_of(
            quiet, simulated=True, seed=seed).items()), 4)
        for seed in range(6)
    }  # fmt: skip
    assert sides == {0.1, -0.1}


def test_an_operator_that_does_not_consent_trains_as_always():
    config = audited()
    trained = update_of(config, seed=1)
    free = update_of(config.model_copy(update={"audit": small_config().audit}), seed=1)
    assert same_params(trained, free)
    canary = update_of(config, seed=1, **{"consent-audit": True})
    assert not same_params(trained, canary)
    reply, _, _ = reply_of(config, **{"consent-audit": 1})
    assert reply.error.reason == "node consent-audit: must be true or false, got 1"


def test_a_deployed_client_keeps_its_coin_in_its_own_state(tmp_path):
    config = audited(DP_SGD, records=40)
    node = {"consent-audit": True, "truth": str(tmp_path)}
    reply, context, _ = reply_of(config, **node)
    assert not reply.has_error()
    kept = from_record(context.state.array_records["canary"])["coins"].bool()
    assert torch.equal(kept, read_coins(tmp_path, 1, "0"))
    _, other, _ = reply_of(config, **node)
    assert not torch.equal(from_record(other.state.array_records["canary"])["coins"].bool(), kept)


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"audit": {"clients": 9}}, "audit.clients: must be at most federation.clients = 6, got 9"),
        (
            {"federation": {"clients": 6, "secure_aggregation": True}},
            "audit.clients: must be 0 with secure aggregation, which shows no client's upload, "
            "got 4",
        ),
        (
            {"defense": [{"name": "gaussian", "std": 1.0}]},
            "audit.clients: must go with defenses that claim an ε of a client's data or of an "
            "example more (clip and then gaussian; dp-sgd with poisson) and a model without state "
            "that training moves by itself, got gaussian, of which nothing is claimed",
        ),
        (
            {"record": {"every": 2}},
            "record: must keep every round of the clients that are audited, got every = 2, "
            "clients = all",
        ),
        (
            {"defense": DP_SGD, "audit": {"clients": 1, "records": 2}},
            "audit.clients: must carry at least 6 canaries to certify anything at 95 %, got 2",
        ),
        (
            {"defense": DP_SGD, "audit": {"clients": 4, "delta": 1e-6}},
            "audit.delta: must be the defense's δ = 0.001, at which alone its ε is known, "
            "got 1e-06",
        ),
    ],
)  # fmt: skip
def test_refusals_are_one_sentence(changed, sentence):
    tables = {
        "defense": NOISED, "attack": [], "federation": {"clients": 6}, "audit": {"clients": 4},
        **changed,
    }  # fmt: skip
    with pytest.raises(ConfigError) as caught:
        prepare(small_config(**tables))
    assert str(caught.value) == sentence


def test_of_a_gaussian_mechanism_theory_is_known_at_any_delta(tmp_path):
    run = api.run(audited(rounds=3, every=3, delta=1e-3), tmp_path / "run")
    claimed = bounds_of(run, 3)["audit-mean"][1]
    plan = prepare(audited(rounds=3))
    assert claimed < plan.defense.promise.epsilon(plan.local, 1, 3)
