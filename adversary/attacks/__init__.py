"""The attacks: one file for each paper, its records at its end; one word here for a new file.

In: what the server knows of one client, and what the adversary knew before. Out: a guess.
"""

from adversary.attack import Attack
from fedsim.core.records import Records

MODULES = (
    "llg",
    "idlg",
    "grad_inversion",
    "rlg",
    "geng",
    "dimitrov",
    "ilrg",
    "llbg",
    "rlu",
    "eb_gls",
    "eb_gls_sim",
    "eb_gls_rounds",
    "cosine_mia",
    "gradient_difference_mia",
    "loss_drop",
    "tokens_moved",
    "whitened_mia",
    "fedmia",
    "update_lira",
    "quantile_mia",
    "rmia",
    "ramia",
    "duci",
    "source_inference",
    "attribute_inference",
    "shadow_inference",
    "user_ratio",
    "linkage",
    "dlg",
    "inverting_gradients",
    "see_through_gradients",
    "tab_leak",
    "analytic",
    "spear",
    "spear_plus_plus",
    "r_gap",
    "april",
    "patch_spans",
    "grad_vit",
    "subspace",
    "joint",
    "auto_reconstruct",
    "token_rows",
    "positions",
    "row_bayes",
    "exposure",
    "dager",
    "span_pursuit",
    "sampled_texts",
    "baselines",
)

ATTACKS = Records[Attack]("adversary.attacks", MODULES, "ATTACK")


def is_baseline(name: str) -> bool:
    """Return whether the attack of a name looks at no update; one that is not built in does."""
    return name in ATTACKS and ATTACKS[name].baseline
