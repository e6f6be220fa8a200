"""`fedsim audit`, as a user runs it: an honest mechanism passes, and broken ones are caught."""

import json
import shutil

import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from adversary.auditing.finding import DENSITY, SAMPLED
from defenses.promise import Relation
from fedsim import api
from fedsim import config as configs
from fedsim.audit import runs as audit_runs
from fedsim.audit import table as audits
from fedsim.audit.neighbours import craft
from fedsim.audit.setup import prepare
from fedsim.cli.main import app
from fedsim.config import parse
from fedsim.core.errors import ClaimRefuted, ConfigError, RunStopped
from fedsim.run.run_folder import RunFolder
from tests.builders import small_config

pytestmark = [pytest.mark.usefixtures("undrawn"), pytest.mark.contract, pytest.mark.untyped]

FEW = ["average", "natural", "gradient"]
CLIP = {"name": "clip", "bound": 0.5}
SIGMA = {"name": "gaussian", "std": 1.0}
OWN = {"mechanism": "a:b", "claim": 1.0, "relation": "replace"}
DP_SGD = {"name": "dp-sgd", "clip": 0.5, "noise": 2.0}


@pytest.fixture(autouse=True)
def few_for_calibration(monkeypatch):
    monkeypatch.setattr(audit_runs, "CALIBRATION", 30)


def config(*defenses, **audit):
    asked = {"trials": 200, "candidates": 60, "steps": 5, "batch_size": 4, "canary": FEW}
    return parse({
        "federation": {"strategy": "fedsgd"},
        "data": {"name": "tests.fedsim.audit.test_table:toy_table"},
        "model": {"name": "mlp", "hidden": 8},
        "local": {"epochs": 1},
        "defense": list(defenses),
        "audit": {**asked, **audit},
    })  # fmt: skip


def toy_table(root):
    from tests.adversary.auditing.test_canaries import table

    return table(300)


def audited(config_, out, **options):
    (told,) = audits.audits([configs.Cell("run", config_)], out, **options)
    return told


@pytest.mark.slow
@pytest.mark.parametrize(
    ("defenses", "options", "relation", "claimed"),
    [
        ([DP_SGD], {"column": "sex", "canary": []}, Relation.REPLACE_ATTRIBUTE, 4.38),
        ([DP_SGD], {}, Relation.ADD_OR_REMOVE_EXAMPLE, 1.99),
        ([DP_SGD | {"sampling": "shuffle"}], {}, Relation.ZERO_EXAMPLE, 1.99),
        ([CLIP, SIGMA], {}, Relation.REPLACE_CLIENT, 4.38),
        ([CLIP, SIGMA], {"column": "sex", "rounds": 2}, Relation.REPLACE_ATTRIBUTE, 6.57),
    ],
)
def test_an_honest_mechanism_passes_and_its_claim_is_of_the_same_neighbours(
    tmp_path, defenses, options, relation, claimed
):
    told = audited(config(*defenses, **options), tmp_path)
    assert told.verdict is None
    assert told.claim.epsilon == pytest.approx(claimed, abs=0.01)
    by = {(row.canary, row.method): row for row in told.rows}
    assert {row.relation for row in told.rows} == {relation}
    chosen = by["gradient", "mu-gdp"]
    limit = 2.0 if relation.replaces else 1.0
    assert chosen.apart == pytest.approx(limit, rel=1e-3)
    assert chosen.exact == pytest.approx(claimed, abs=0.01)
    assert 0.4 * claimed < chosen.epsilon < claimed * 1.2
    for row in told.rows:
        assert row.apart <= limit * (1 + 1e-6)
        assert row.exact <= chosen.exact * (1 + 1e-4)
        assert (row.guarantee == "credible") == (row.method == "bayes")
        assert (row.joint is None) == (row.method == "bayes")
        if row.most is not None and row.assumes is None:
            assert row.epsilon <= row.most
    assert by["average", "mu-gdp"].apart <= by["natural", "mu-gdp"].apart * (1 + 1e-6)
    if not options.get("canary", FEW):
        assert {row.canary for row in told.rows} == {*FEW, "in-domain", "free"}
        assert by["natural", "mu-gdp"].apart <= by["in-domain", "mu-gdp"].apart * (1 + 1e-6)


@pytest.mark.parametrize(
    ("defenses", "rounds", "guilty"),
    [
        ([{"name": "tests.broken:half_noise", "clip": 0.5, "noise": 2.0}], 1, "noise too small"),
        ([{"name": "tests.broken:late_clip", "clip": 0.5, "noise": 2.0}], 1, "clips after aver"),
        ([CLIP, {"name": "tests.broken:same_noise", "std": 1.0}], 1, "reuses its noise"),
        ([CLIP, {"name": "tests.broken:remembered_noise", "std": 1.0}], 2, "reuses its noise"),
        ([{"name": "tests.broken:no_clip", "bound": 0.5}, SIGMA], 1, "does not clip"),
    ],
)
def test_a_planted_bug_is_refuted_and_named(tmp_path, defenses, rounds, guilty):
    names = ["gradient", "opposite"] if rounds > 1 else ["gradient"]
    told = audited(config(*defenses, column="sex", canary=names, rounds=rounds), tmp_path)
    assert told.refuted
    assert max(row.joint for row in told.refuted) > told.claim.epsilon
    assert guilty in told.verdict
    broken = next(part["name"] for part in defenses if "broken" in part["name"])
    assert f"defense {broken} (link" in told.verdict
    if len(defenses) > 1 and "no_clip" not in broken:
        assert "defense clip" not in told.verdict


def test_a_mechanism_of_the_user_s_own_is_held_against_its_claim(tmp_path):
    asked = {"canary": ["gradient"], "column": "sex", "claim": 4.4, "trials": 1000,
             "relation": "replace"}  # fmt: skip
    name = "tests.fedsim.audit.test_table:"
    told = audited(config(mechanism=name + "noisy", **asked), tmp_path / "honest")
    assert told.verdict is None
    told = audited(config(mechanism=name + "fixed", **asked), tmp_path / "broken")
    assert "the mechanism as a whole is not what it claims" in told.verdict


def test_too_few_runs_to_refute_a_claim_say_how_many_could(tmp_path):
    asked = {"canary": ["gradient"], "column": "sex", "claim": 4.4, "trials": 100,
             "relation": "replace"}  # fmt: skip
    told = audited(config(mechanism="tests.fedsim.audit.test_table:fixed", **asked), tmp_path)
    assert told.verdict is None
    least = int(told.blunt.removeprefix("No bound here").split("audit.trials must be at least ")[1])
    assert 300 < least < 500


def noisy(model, inputs, labels, generator):
    import torch
    from torch.nn import functional

    loss = functional.cross_entropy(model(inputs), labels)
    found = torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(model.parameters()))])
    found = found * (1.0 / found.norm()).clamp(max=1.0)
    return found + 2.0 * torch.randn(found.shape, generator=generator)


def fixed(model, inputs, labels, generator):
    import torch

    return noisy(model, inputs, labels, torch.Generator().manual_seed(0))


def test_an_audit_goes_on_where_it_was_stopped(tmp_path):
    asked = config(DP_SGD, column="sex", canary=["natural", "gradient"], trials=1100)
    whole = audited(asked, tmp_path / "whole")
    seen = []

    def stop(name, done, total):
        seen.append((name, done))
        if done > 700 and name == "gradient":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        audited(asked, tmp_path / "stopped", on_runs=stop)
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "stopped").rglob("*.safetensors")}
    assert 0 < len(kept) < len(list((tmp_path / "whole").rglob("*.safetensors")))
    again = audited(asked, tmp_path / "stopped")
    assert all(path.stat().st_mtime_ns == at for path, at in kept.items())
    same = lambda told: [vars(row) | {"seconds": 0} for row in told.rows]
    assert same(again) == same(whole)
    with pytest.raises(ConfigError, match="must be this audit's folder or not exist"):
        audited(config(DP_SGD, column="sex", trials=400), tmp_path / "stopped")


@pytest.mark.slow
def test_a_recording_s_own_weights_are_audited(tmp_path):
    run = tmp_path / "run"
    api.run(small_config(defense=[CLIP, SIGMA]), run)
    there = ["--set", 'audit.canary=["natural","gradient"]', "--set", "audit.trials=200", "--json"]
    done = CliRunner().invoke(app, ["audit", str(run), "--set", "audit.rounds=2", *there])
    assert done.exit_code == 0, done.output
    (told,) = json.loads(done.stdout)["audits"]
    assert told["verdict"] is None
    assert told["claim"]["epsilon"] == pytest.approx(6.57, abs=0.01)
    assert (run / "audit" / "audit.html").exists()
    setup = prepare(api.Run(run).config(), run)
    sent = RunFolder(run).path / "rounds" / "0003" / "sent.safetensors"
    from fedsim.core.files import TensorFile

    for name, value in TensorFile(sent).items():
        assert (setup.states[-1][name] == value).all()


def test_what_canaries_in_a_recorded_run_show_is_part_of_its_audit(tmp_path):
    asked = {"audit": {"clients": 4, "trials": 20, "canary": ["gradient"]}, "attack": [],
             "federation": {"rounds": 4}}  # fmt: skip
    runner = CliRunner()
    for name, defense, code in (("honest", SIGMA, 0), ("broken", {"name": "tests.broken:same_noise",
                                                                 "std": 1.0}, 3)):  # fmt: skip
        run = tmp_path / name
        api.run(small_config(defense=[CLIP, defense], seed=3, **asked), run)
        done = runner.invoke(app, ["audit", str(run)])
        assert "In the run, until round 4: audit-mean ≥" in done.stdout
        found = done.exception.code if code else done.exit_code
        assert found == code, done.output
        if code:
            assert "the recorded clients claim ε = 10 until round 4, but audit-mean" in str(
                done.exception
            )
            assert "reuses its noise" in str(done.exception)


def written(tmp_path, config_):
    from fedsim import config as configs

    path = tmp_path / "audit.toml"
    path.write_text(configs.dump(config_))
    return path


def test_the_command_prints_a_table_and_fails_where_a_claim_is_refuted(tmp_path):
    runner = CliRunner()
    out = tmp_path / "honest"
    path = written(tmp_path, config(DP_SGD, column="sex", canary=["natural", "gradient"]))
    done = runner.invoke(app, ["audit", str(path), "--out", str(out)])
    assert done.exit_code == 0, done.output
    assert "…" not in done.output
    assert "Claim: ε = 4.38 at δ = 1e-05 (replace one example)" in done.stdout
    assert "Not to be compared: add or remove one example: ε = 1.99" in done.stdout
    assert "The claim stands: ε = 4.38 at δ = 1e-05 (replace one example). The runs" in done.stdout
    assert "credible, not a bound" in done.stdout.replace("\n", " ")
    page = (out / "audit.html").read_text()
    assert "No bound exceeds the claim" in page
    assert "<svg" in page
    rows = pq.read_table(out / "audit.parquet").to_pylist()
    assert {row["guarantee"] for row in rows} == {"bound", "credible"}
    broken = {"name": "tests.broken:half_noise", "clip": 0.5, "noise": 2.0}
    path = written(tmp_path, config(broken, column="sex", canary=["gradient"]))
    done = runner.invoke(app, ["audit", str(path), "--out", str(tmp_path / "broken")])
    assert isinstance(done.exception, ClaimRefuted)
    assert done.exception.code == 3
    assert "claims ε = 4.38 (replace one example), but canary 'gradient' shows" in str(
        done.exception
    )
    assert "noise too small" in (tmp_path / "broken" / "audit.html").read_text()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"column": "hair"}, "audit.column: must be a categorical input, got 'hair'"),
        ({"column": "sex", "values": ("f", "x")}, "audit.values: must be values of sex, got 'x'"),
        ({"trials": 11}, "audit.trials: must be at least 12 of each hypothesis .* got 11"),
        ({"canary": ["unnatural"]}, "audit.canary: must be a known name, got 'unnatural'"),
        ({"canary": ["opposite"]}, "'opposite' must have rounds ≥ 2"),
        ({"canary": ["canife"], "column": "sex"}, "'canife' must ask about a record"),
        ({"batch_size": 500}, "audit.batch_size: must be at most the 30 auxiliary records"),
        (
            {"mechanism": "os:getcwd", "claim": 1.0, "relation": "replace"},
            "must stand in place of defenses, got both",
        ),
        ({"claim": 1.0}, "audit.claim: must stand beside audit.mechanism"),
    ],
)
def test_what_is_wrong_is_said_before_anything_runs(tmp_path, changes, said):
    with pytest.raises(ConfigError, match=said):
        audited(config(DP_SGD, **changes), tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"threshold": "best"}, "chosen on the scores that it certifies shows too much"),
        ({"mechanism": "a:b"}, "audit.claim: must say which ε audit.mechanism claims"),
        ({"mechanism": "a:b", "claim": 1.0}, "audit.relation: must say which neighbours .* none"),
        (OWN | {"relation": "other"}, "audit.relation: must say which neighbours .* got other"),
        (OWN | {"relation": "add-remove", "column": "sex"}, "claim is never held against other"),
        (OWN | {"relation": "attribute"}, "audit.relation: must go with audit.column, got 'attri"),
        (OWN | {"mechanism_type": "laplace"}, "mechanism_type: must be gaussian or omitted"),
        ({"mechanism_type": "gaussian"}, "mechanism_type: must stand beside audit.mechanism"),
        ({"delta": 1.0}, "audit.delta: input should be less than 1, got 1.0"),
        ({"confidence": 0.0}, "audit.confidence: input should be greater than 0, got 0.0"),
        ({"values": ("a", "b")}, "audit.values: must be two values of audit.column"),
    ],
)
def test_a_section_that_makes_no_sense_is_refused(changes, said):
    with pytest.raises(ConfigError, match=said):
        config(DP_SGD, **changes)


def test_another_delta_is_worked_out_or_refused(tmp_path):
    setup = prepare(config(DP_SGD, delta=1e-3))
    assert setup.claim.delta == 1e-3
    assert setup.claim.epsilon < 1.99
    sampled = parse({
        **config(DP_SGD, delta=1e-3).model_dump(mode="json", exclude_none=True),
        "federation": {}, "local": {"batch_size": 2, "epochs": 1},
    })  # fmt: skip
    with pytest.raises(ConfigError, match="audit.delta: must be the defense's δ = 1e-05"):
        prepare(sampled)


def test_too_few_records_for_a_step_are_refused_with_the_setting_that_helps():
    made = config(DP_SGD, batch_size=1).model_dump(mode="json", exclude_none=True)
    made |= {"federation": {}, "local": {"batch_size": 2, "epochs": 1}}
    with pytest.raises(ConfigError, match="got 1; --set audit.batch_size=4 lets half of them"):
        prepare(parse(made))
    made["audit"]["batch_size"] = 4
    prepare(parse(made))


@pytest.mark.slow
def test_several_local_steps_do_not_exhaust_a_chosen_gradient(tmp_path):
    few = {"column": "sex", "canary": ["gradient"], "trials": 100}
    made = config(DP_SGD, **few).model_dump(mode="json", exclude_none=True)
    several = {"local": {"epochs": 3, "lr": 0.5, "batch_size": 4}, "federation": {}}
    told = audited(parse({**made, **several}), tmp_path)
    by = {row.canary: row for row in told.rows if row.method == "mu-gdp"}
    assert by["gradient"].apart == pytest.approx(2.0, rel=1e-3)
    assert told.claim.epsilon == pytest.approx(8.38, abs=0.1)
    assert 0.3 * told.claim.epsilon < by["gradient"].epsilon < 1.2 * told.claim.epsilon
    assert {row.exact for row in told.rows} == {None}


@pytest.mark.slow
def test_a_record_that_is_seldom_drawn_is_looked_for_all_the_same(tmp_path):
    made = config(DP_SGD, batch_size=8, canary=["natural"], trials=20)
    made = made.model_dump(mode="json", exclude_none=True)
    seldom = {"local": {"epochs": 1, "batch_size": 1}, "federation": {}}
    told = audited(parse({**made, **seldom}), tmp_path)
    assert told.verdict is None
    assumed = {row.assumes for row in told.rows if row.joint is not None}
    assert assumed == {None, DENSITY, SAMPLED}  # not that it is Gaussian


@pytest.mark.parametrize("threshold", ["split", "multi-split", "bonferroni", "hull"])
def test_other_thresholds_stand_noise_that_is_always_the_same(tmp_path, threshold):
    same = {"name": "tests.broken:same_noise", "std": 1.0}
    told = audited(config(CLIP, same, canary=["gradient"], threshold=threshold), tmp_path)
    found = {row.method for row in told.rows}
    learned = {"learned", "learned-mu-gdp", "repeats"}
    split = {"mu-gdp", "clopper-pearson"}
    assert found == learned | (split if threshold == "split" else {f"clopper-pearson-{threshold}"})
    assert "reuses its noise" in told.verdict


@pytest.mark.slow
def test_defenses_that_take_no_chosen_gradient_are_audited_by_records(tmp_path):
    soteria = {"name": "soteria"}
    told = audited(config(soteria, CLIP, SIGMA, canary=[]), tmp_path)
    assert {row.canary for row in told.rows} == {"average", "natural", "canife"}
    assert {row.apart for row in told.rows} == {None}
    with pytest.raises(ConfigError, match="'gradient' must go with defenses that take any grad"):
        prepare(config(soteria, CLIP, SIGMA, canary=["gradient"]))


def test_a_recording_that_has_gone_on_is_another_audit(tmp_path):
    run, out = tmp_path / "run", tmp_path / "audit"
    asked = small_config(defense=[CLIP, SIGMA], audit={"trials": 20, "canary": ["gradient"]})
    api.run(asked, run)
    audited(asked, out, run=run)
    audited(asked, out, run=run)
    shutil.copytree(run / "rounds" / "0002", run / "rounds" / "0004")
    with pytest.raises(ConfigError, match="must be this audit's folder or not exist"):
        audited(asked, out, run=run)


def failing():
    """A defense that breaks down."""
    from defenses import Defense

    def apply(params, state, generator):
        raise IndexError("list index out of range")

    return Defense(name="failing", apply=apply)


def test_a_client_that_cannot_run_is_said_in_a_sentence(tmp_path):
    broken = {"name": "tests.fedsim.audit.test_table:failing"}
    with pytest.raises(RunStopped, match="audited client: must run, got IndexError: list index"):
        audited(config(broken, canary=["natural"]), tmp_path)


def test_canaries_are_found_in_the_setting_s_own_data():
    setup = prepare(config(DP_SGD, column="sex"))
    worst = craft(setup, "natural")
    assert any(bool((worst.inputs == row).all()) for row in setup.pool.inputs)
