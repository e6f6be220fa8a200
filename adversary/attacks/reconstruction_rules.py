"""Which reconstruction fits which model and protocol: a table of rules, the most exact first.

To add an attack, put a rule at its place in `RULES`. `applies` says why it fits, or nothing; `work`
says what it costs, so that a budget can be kept.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from torch import Generator, Tensor

from adversary.attack import Infer
from adversary.attacks.analytic import agreed, analytic
from adversary.attacks.april import april
from adversary.attacks.inverting_gradients import inverting_gradients
from adversary.attacks.joint import operations
from adversary.attacks.joint_solution import solved
from adversary.attacks.patch_spans import patch_spans
from adversary.attacks.r_gap import hybrid
from adversary.attacks.spear import spear
from adversary.attacks.spear_plus_plus import spear_plus_plus
from adversary.attacks.subspace import STARTS, subspace
from adversary.attacks.tab_leak import tab_leak
from adversary.inversion.dictionary import operations as dictionary_operations
from adversary.inversion.priors import data_range
from adversary.inversion.setting import SECOND, Setting
from adversary.inversion.token_descent import ROUNDS
from adversary.inversion.token_spans import LAYERS
from adversary.inversion.tuning import PRIORS, STEPS
from adversary.labels.head import input_shape
from fedsim.core.types import Auxiliary, Estimate, View

CLOSED = 1e-2  # misfit of closed forms that descents do not improve on
ENSEMBLE = 30  # restarts of TabLeak
NEAR = 0.01  # of grey's misfit: a picture but for one patch or two
RESTARTS = 2  # of each example's descents into spans
REHEARSALS = 1  # clients attacked beside the one, to learn by how much to shrink its answer
DRAWN, LEARNED = 32, 128  # examples of a batch that SPEAR, SPEAR++ was measured to take apart

Work = tuple[str, float]
"""The option that says how long an attack works, and the operations that each unit of it takes; of
an attack without one the empty text, and all of its operations."""


@dataclass(frozen=True, kw_only=True)
class Rule:
    """One attack that may be chosen.

    Attributes:
        name: As in `fedsim list attacks`.
        infer: The attack.
        applies: Why it fits a setting; None where it does not.
        work: What it costs in a setting.
        enough: Misfit at which no other attack is nearer: of closed forms, whose error is that of
            rounding alone.
        ordered: Whether its answer is in the order of the labels.
        certified: Whether it tests its answer by itself, and refuses or says what it could not
            test; its answer is in an order of its own.
        starts: Whether it makes as many starts as it is given.
    """

    name: str
    infer: Infer
    applies: Callable[[Setting], str | None]
    work: Callable[[Setting], Work] = lambda _: ("", 0.0)
    enough: float = 0.0
    ordered: bool = True
    certified: bool = False
    starts: bool = False


def _ratio(setting: Setting) -> str | None:
    if setting.first is None or setting.count > 1:
        return None
    return f"the first layer {setting.first} is fully connected with a bias, of one example"


def _zeros(setting: Setting, *, least: int, most: int) -> str | None:
    fits = setting.first is not None and setting.after == "ReLU" and setting.steps == 1
    if not fits or not least < setting.count <= most:
        return None
    return f"ReLU follows the fully connected {setting.first}, of {setting.count} examples"


def _alone(setting: Setting) -> str | None:
    if setting.first is None or setting.count == 1 or setting.steps > 1:
        return None
    return f"an example that is alone on a unit of {setting.first} stands in its gradient"


def _embedded(setting: Setting) -> str | None:
    if setting.positions is None or setting.count > 1:
        return None
    return f"{setting.positions} has the slopes of the patches' embeddings, of one example"


def _spanned(setting: Setting) -> str | None:
    if setting.structure is None or setting.mixing is not None or setting.steps > 1:
        return None
    usable = setting.structure.usable(setting.count)
    if not usable:
        return None
    tokens = usable[0].rank(1)
    return f"{setting.count} × {tokens} tokens do not fill the spans of {usable[0].module}'s inputs"


def _walked(setting: Setting) -> str | None:
    if setting.unwalkable is not None or setting.count > 1 or setting.steps > 1:
        return None
    return "every layer can be walked back through, of one example"


def _narrowed(setting: Setting) -> str | None:
    if setting.narrow is None or setting.count > 1 or setting.steps > 1:
        return None
    return f"the gradient of {setting.narrow} spans the windows of its input, of one example"


def _solved(setting: Setting) -> str | None:
    smooth = setting.kink is None and setting.flat is None and setting.mixing is None
    if not smooth:
        return None
    fitted = ""
    if setting.steps > 1 and setting.count > 1:
        fitted = "; labels are fitted" if setting.ordered else "; labels and orders are fitted"
    return f"the model has no kinks, for Gauss-Newton steps{_simulated(setting)}{fitted}"


def _columns(setting: Setting) -> str | None:
    if setting.flat is not None or not setting.records:
        return None
    return f"inputs encode declared columns of a table{_simulated(setting)}"


def _matched(setting: Setting) -> str | None:
    if setting.flat is not None or setting.records:  # which tab-leak matches in their columns
        return None
    return f"the gradient can be differentiated in the inputs{_simulated(setting)}"


def _simulated(setting: Setting) -> str:
    return f", and {setting.steps} local steps can be simulated" if setting.steps > 1 else ""


def _per_step(setting: Setting) -> Work:
    return "steps", operations(setting)


def _per_iteration(setting: Setting, restarts: float) -> Work:
    return "iterations", restarts * SECOND * setting.cost * setting.steps


def _per_descent(setting: Setting) -> Work:
    """Return what an iteration of all rows of `patch-spans` takes of the first layers."""
    assert setting.structure is not None
    structure, count = setting.structure, setting.count
    last = structure.readers.index(structure.usable(count)[:LAYERS][-1])
    depth = (last + 1) / len(structure.readers)
    rows = RESTARTS * count + ROUNDS * (count + RESTARTS)
    return "iterations", rows * depth * setting.cost / count


def _matching(
    view: View, auxiliary: Auxiliary, generator: Generator, *, iterations: int = 3000
) -> Tensor | Estimate:
    """Return what matching finds with the first values of its settings, which cost no choice."""
    (optimiser, rate), (low, high) = STEPS[0], data_range(auxiliary)
    return inverting_gradients(
        view,
        auxiliary,
        generator,
        restarts=1,
        iterations=iterations,
        optimiser=optimiser,
        lr=rate * float((high - low).float().mean()),
        tv=PRIORS[0] if len(input_shape(auxiliary)) == 3 else 0.0,
        start="grey",
        rehearsals=REHEARSALS,
    )


RULES = (
    Rule(name="analytic", infer=analytic, applies=_ratio, enough=CLOSED),
    Rule(
        name="spear",
        infer=spear,
        applies=partial(_zeros, least=1, most=DRAWN),
        certified=True,
    ),
    Rule(
        name="spear-plus-plus",
        infer=spear_plus_plus,
        applies=partial(_zeros, least=DRAWN, most=LEARNED),
        work=lambda setting: ("", dictionary_operations(setting.count)),
        certified=True,
    ),
    Rule(name="analytic", infer=agreed, applies=_alone, ordered=False),
    Rule(name="april", infer=april, applies=_embedded, enough=CLOSED),
    Rule(
        name="patch-spans",
        infer=partial(patch_spans, restarts=RESTARTS, misfit=NEAR),
        applies=_spanned,
        work=_per_descent,
        enough=CLOSED,
        ordered=False,
    ),
    Rule(name="hybrid", infer=hybrid, applies=_walked, enough=CLOSED),
    Rule(
        name="subspace",
        infer=subspace,
        applies=_narrowed,
        work=lambda setting: ("iterations", STARTS * setting.cost),  # through the first layers
        enough=CLOSED,
    ),
    Rule(
        name="joint",
        infer=solved,
        applies=_solved,
        work=_per_step,
        starts=True,
    ),
    Rule(
        name="tab-leak",
        infer=partial(tab_leak, restarts=ENSEMBLE),
        applies=_columns,
        work=partial(_per_iteration, restarts=ENSEMBLE),
    ),
    Rule(
        name="inverting-gradients",
        infer=_matching,
        applies=_matched,
        work=partial(_per_iteration, restarts=1 + REHEARSALS),
    ),
)
