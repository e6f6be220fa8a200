"""The run room: what a run is, on paper and on disk.

In: a config. Out: a plan with everything built and checked (`prepare`), the attacks of a round
(`attack_round`), what its defenses promise and cost (`epsilon_and_fidelity`), a run folder with
its ledger.
"""
