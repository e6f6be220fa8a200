"""All attacks by name; add one line here for a new one."""

from adversary.attack import Attack
from adversary.attacks.idlg import idlg
from adversary.attacks.llg import llg

ATTACKS: dict[str, Attack] = {
    attack.name: attack
    for attack in (
        Attack("llg", "label", llg, summary="label counts from the head gradient's row sums"),
        Attack("idlg", "label", idlg, summary="the one label of a single-example gradient"),
    )
}
