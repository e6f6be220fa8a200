"""The evidence pack: what a red-team exercise owes its auditors, as one folder.

In: a run. Out: report, tables, config, versions, checksums, and a text that says what was tested,
what failed, what was not tested, and which questions of AISVS, CoSAI and a DPIA the run answers.
"""
