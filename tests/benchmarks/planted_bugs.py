"""Which planted bugs an audit catches, with how many runs, and how often it is wrong.

    uv run python -m tests.benchmarks.planted_bugs [--seeds 3] [--trials 100,400] [bugs | alarms]

Prints the tables of docs/results/audits.md. A toy table of 300 records, an MLP with 8 hidden units,
batches of 4 records; `alarms` audits twelve honest chains, each with as many seeds.
"""

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from scipy.stats import binomtest

from fedsim import config as configs
from fedsim.audit import runs as audit_runs
from fedsim.audit import table as audits
from fedsim.audit.result import AuditResult
from tests.fedsim.audit.test_table import CLIP, DP_SGD, SIGMA, config

CALIBRATION = 10
SURE = 0.95  # confidence of the interval of a rate
DP, NOISE = {"clip": 0.5, "noise": 2.0}, {"std": 1.0}
SAMPLED = {"federation": {}, "local": {"epochs": 1, "batch_size": 2}}
CROWD = {"canary": ["natural", "gradient", "microbatch"]}
ROUNDS = {"rounds": 2, "canary": ["gradient", "opposite"]}


def noised(name: str) -> list[dict]:
    """Return a clip, and noise with a bug."""
    return [CLIP, {"name": name, **NOISE}]


def clipped(name: str) -> list[dict]:
    """Return a clip with a bug, and noise."""
    return [{"name": name, "bound": 0.5}, SIGMA]


def inside(name: str) -> list[dict]:
    """Return DP-SGD with a bug."""
    return [{"name": name, **DP}]


BUGS: dict[str, tuple[list[dict], dict, dict]] = {
    "noise forgotten on the head's bias": (noised("tests.planted:forgotten_bias"), {}, {}),
    "no noise in 5 % of uploads": (noised("tests.planted:rare_failure"), {}, {}),
    "noise on moved entries only": (noised("tests.planted:touched_only"), {}, {}),
    "half the noise": (noised("tests.broken:half_gaussian"), {}, {}),
    "the same noise every time": (noised("tests.broken:same_noise"), {}, {}),
    "noise drawn once per client": (noised("tests.broken:remembered_noise"), ROUNDS, {}),
    "noise seeded by the update": (noised("tests.planted:seeded_by_update"), {}, {}),
    "one seed for all tensors": (noised("tests.planted:same_seeds"), {}, {}),
    "one draw per tensor": (noised("tests.planted:one_draw"), {}, {}),
    "noise in bfloat16": (noised("tests.planted:half_precision"), {}, {}),
    "noise cut off at 2 σ": (noised("tests.planted:truncated"), {}, {}),
    "uniform noise": (noised("tests.planted:uniform"), {}, {}),
    "noise that decays over rounds": (noised("tests.planted:decaying"), ROUNDS, {}),
    "clipped again after the noise": (noised("tests.planted:noise_then_clip"), {}, {}),
    "no clip": (clipped("tests.broken:no_clip"), {}, {}),
    "every tensor clipped by itself": (clipped("tests.planted:clipped_tensors"), {}, {}),
    "entries clamped, not the norm": (clipped("tests.planted:clamped"), {}, {}),
    "biases not clipped": (clipped("tests.planted:weights_clipped"), {}, {}),
    "momentum after the clip": (clipped("tests.planted:momentum_after_clip"), ROUNDS, {}),
    "error feedback after the clip": (clipped("tests.planted:error_feedback"), ROUNDS, {}),
    "DP-SGD: half the noise": (inside("tests.broken:half_noise"), {}, {}),
    "DP-SGD: clips after averaging": (inside("tests.broken:late_clip"), {}, {}),
    "DP-SGD: clips pairs of records": (inside("tests.planted:clipped_pairs"), CROWD, {}),
    "DP-SGD: noise divided by the batch twice": (inside("tests.planted:wrong_batch"), {}, {}),
    "DP-SGD: divides by the records that came": (inside("tests.planted:by_count"), {}, {}),
    "DP-SGD: noise once an epoch": (inside("tests.planted:once_an_epoch"), {}, SAMPLED),
    "DP-SGD: no Poisson sampling": (inside("tests.planted:unsampled"), {}, SAMPLED),
    "DP-SGD: shuffles, claims Poisson": (inside("tests.planted:shuffled"), {}, SAMPLED),
    "DP-SGD: one batch for all steps": (inside("tests.planted:sampled_once"), {}, SAMPLED),
}
"""Bug → the chain, and what else differs in the audit's section and in the config."""

AFTER: dict[str, dict] = {
    "prune": {}, "quantise": {}, "sparsify": {}, "freeze": {"layers": ["head.bias"]}, "sign": {},
}  # fmt: skip
CHAINS: dict[str, list[dict]] = {
    "dp-sgd": [DP_SGD],
    "clip → gaussian": [CLIP, SIGMA],
    **{f"dp-sgd → {n}": [DP_SGD, {"name": n, **more}] for n, more in AFTER.items()},
    **{f"clip → gaussian → {n}": [CLIP, SIGMA, {"name": n, **more}] for n, more in AFTER.items()},
}


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser()
    parser.add_argument("what", nargs="*", default=["bugs", "alarms"])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--trials", default="100,400")
    options = parser.parse_args()
    torch.set_num_threads(1)
    audit_runs.CALIBRATION = CALIBRATION
    if "bugs" in options.what:
        print(
            "| bug | refuted with runs | by | in seeds | guilty link named |\n|---|---|---|---|---|"
        )
        for name, bug in BUGS.items():
            trials = [int(number) for number in options.trials.split(",")]
            print(caught(name, bug, trials, options.seeds), flush=True)
    if "alarms" in options.what:
        print(f"\n| chain | seeds | refuted | {SURE:.0%} interval | broken links |")
        print("|---|---|---|---|---|")
        totals = np.zeros(3, dtype=np.int64)
        for name, chain in CHAINS.items():
            counts = alarms(chain, options.seeds)
            totals += counts
            print(alarm_row(name, *counts), flush=True)
        print(alarm_row("together", *totals.tolist()), flush=True)


def caught(name: str, bug: tuple[list[dict], dict, dict], trials: Sequence[int], seeds: int) -> str:
    """Audit a bug with more and more runs until a bound refutes the claim in every seed."""
    chain, section, changes = bug
    row, named = "– |  | 0", False
    for count in trials:
        results = [_audit(chain, seed, changes, trials=count, **section) for seed in range(seeds)]
        refuted = [result for result in results if result.refuted]
        named = all(result.broken for result in results)
        if refuted:
            worst = max(refuted[0].refuted, key=lambda each: each.joint or 0.0)
            what = f"{worst.method} (ε ≥ {worst.joint:.3g} of {worst.claimed:.3g})"
            row = f"{2 * count} | {what} | {len(refuted)} of {seeds}"
        if len(refuted) == seeds:
            break
    return f"| {name} | {row} | {'yes' if named else 'no'} |"


def alarms(chain: list[dict], seeds: int) -> tuple[int, int, int]:
    """Audit an honest chain with many seeds; count them, those refuted, and broken links."""
    refuted = broken = 0
    for seed in range(seeds):
        result = _audit(chain, seed, {}, trials=60, canary=["gradient"])
        refuted += bool(result.refuted)
        broken += bool(result.broken)
    return seeds, refuted, broken


def alarm_row(name: str, seeds: int, refuted: int, broken: int) -> str:
    """Return a row, with the two-sided Clopper–Pearson interval of the rate of those refuted.

    Links are measured with the same coins in every seed, so that they have no rate.
    """
    interval = binomtest(refuted, seeds).proportion_ci(SURE, method="exact")
    rate = f"{100 * interval.low:.1f} – {100 * interval.high:.1f} %"
    return f"| {name} | {seeds} | {refuted} | {rate} | {broken} |"


def _audit(chain: list[dict], seed: int, changes: dict, **section: object) -> AuditResult:
    """Audit one chain with one seed."""
    made = config(*chain, **{"canary": ["natural", "gradient"], **section})
    made = made.model_dump(mode="json", exclude_none=True) | changes | {"seed": seed}
    with tempfile.TemporaryDirectory() as folder:
        cell = configs.Cell("run", configs.parse(made))
        return audits.audits([cell], Path(folder))[0]


if __name__ == "__main__":
    main()
