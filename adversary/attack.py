"""An attack: a record of one function from what the server knows to a guess."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from torch import Generator, Tensor

from adversary.costs import Cost
from fedsim.core.boundary import PASSING
from fedsim.core.catalog import options_of
from fedsim.core.form import Kind
from fedsim.core.types import Auxiliary, LocalTraining, View
from fedsim.core.units import title_of

Infer = Callable[[View, Auxiliary, Generator], Any]
Plan = Callable[..., str]
CostOf = Callable[[Auxiliary, int, Mapping[str, Any]], Cost | None]
InferAll = Callable[[Sequence[View], Auxiliary], Sequence[Any] | Tensor]


@dataclass(frozen=True, kw_only=True)
class Attack:
    """An attack by name.

    Attributes:
        name: The paper's name for it, in lower case; in a run, as the config calls it.
        family: Which secret it guesses; decides how it is graded.
        infer: (view, auxiliary, generator) → guess. Options are keyword-only arguments.
        infer_all: (views, auxiliary) → a guess for each view, to the bit what `infer` returns for
            it, which must not draw random numbers then. It has the same options, and raises where
            `infer` would for any of the views: they are then answered in halves, in the end one by
            one. None where views are always answered one by one. `auxiliary` is without defense.
        needs: The fields of Auxiliary it cannot do without.
        summary: One line for `fedsim list attacks`.
        baseline: Whether it looks at no update: what it gets has not leaked.
        adaptive: Whether this is the adversary that knows the clients' defense: it is handed the
            defense. A record in a file is of an adversary that does not.
        has_twin: Whether there is an adaptive one beside it (`adversary.adaptive.labels`), at the
            cost of tens of its answers per round.
        rehearses: Whether its twin is the same function, which rehearses clients with the defense
            by itself.
        reads: What of an update it cannot do without (`adversary.readable`): a linear "head"'s
            gradient, that of a fully connected "first layer", whole "spans" of a token model's
            first maps, any parameter that the "update" moves, with the defense "rehearsed texts",
            which upload a table of tokens, or nothing in particular.
        over_rounds: Whether it asks about all that the client has used so far, instead of in the
            latest round.
        every: It attacks rounds 1, 1 + every, 1 + 2·every, and so on.
        clients: The clients it attacks; None for all.
        kinds: The kinds of models it works on; None for those of its family.
        any_optimizer: Whether it holds where an update is no sum of gradients, as after Adam: it
            reads which parameters moved or what the uploaded model makes of records, or compares
            with clients that it trains as the protocol says.
        on_device: Whether all of it computes where the adversary runs the model
            (`Auxiliary.device`): what it is given lies there then. Else it computes on the CPU, and
            what it asks of the model is brought back (`adversary.placement`).
        plan: (auxiliary, local training, examples of an update) → what it will do there and why, in
            words, or nothing; None for an attack that does the same everywhere. It is given those
            of the options that it has as keyword-only arguments.
        memory: How many bytes of memory it may take; None for half of what is free.
        cost: (auxiliary, examples of an update, options) → what an answer costs at most, estimated
            from shapes; None where no estimate can be made. Without one an attack takes no more
            than a few copies of the update.
    """

    name: str
    family: str
    infer: Infer
    infer_all: InferAll | None = None
    needs: tuple[str, ...] = ()
    summary: str = ""
    baseline: bool = False
    adaptive: bool = False
    has_twin: bool = True
    rehearses: bool = False
    reads: Literal["", "head", "first layer", "rehearsed texts", "spans", "update"] = ""
    over_rounds: bool = False
    every: int = 1
    clients: tuple[str, ...] | None = None
    kinds: tuple[Kind, ...] | None = None
    any_optimizer: bool = False
    on_device: bool = False
    plan: Plan | None = None
    memory: float | None = None
    cost: CostOf | None = None

    @property
    def title(self) -> str:
        """What tables, guesses and streams of random numbers call it; see `units.title_of`."""
        return title_of(self.name, adaptive=self.adaptive)

    def is_due(self, round_: int, client: str | None = None) -> bool:
        """Return whether it attacks a round (and in it a client)."""
        aimed = client is None or self.clients is None or client in self.clients
        return (round_ - 1) % self.every == 0 and aimed

    def planned(self, auxiliary: Auxiliary, local: LocalTraining, count: int) -> str:
        """Return what it will do with its options and why; empty where there is nothing to say.

        Args:
            auxiliary: The architecture.
            local: How clients train.
            count: Examples of an update.
        """
        if self.plan is None:
            return ""
        options = {name: it.default for name, it in options_of(self.infer).items()}
        given = {name: options[name] for name in options_of(self.plan)}
        return self.plan(auxiliary, local, count, **given)

    def estimate(self, auxiliary: Auxiliary, count: int) -> Cost | None:
        """Return what an answer costs; None where no estimate can be made.

        Args:
            auxiliary: The architecture.
            count: Examples of an update.
        """
        if self.cost is None:
            return None
        try:
            options = {name: it.default for name, it in options_of(self.infer).items()}
            return self.cost(auxiliary, count, options)
        except PASSING:
            raise
        except Exception:  # the attack says what is wrong
            return None
