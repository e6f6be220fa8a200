"""The run room: what a run is, on paper and on disk.

In: a config. Out: a plan with everything built and checked (`prepare`), the attacks of a round
(`attack_round`), the cost of its defenses (`price`), a run folder with its ledger.
"""
