"""Audits: how private a mechanism is at most, from what canaries give away.

An audit takes the side of the strongest adversary that a claim of differential privacy allows: it
chooses the record (the canary), knows everything else, and asks how well two neighbouring data sets
can be told apart by what is uploaded. `canaries` crafts records, `statistic` scores uploads,
`two_hypotheses`, `one_run` and `one_shot` turn scores into numbers, and `finding` says what kind
of number each is.
"""
