"""The attacks of one recorded round: views and truth in; ledger rows, remarks and guesses out."""

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence

from torch import Tensor

from adversary.attack import Attack
from adversary.grading import answers, leakage
from adversary.grading.families import FAMILIES
from clients import carried
from fedsim.core.devices import run_on, with_doubles
from fedsim.core.errors import BadRecording
from fedsim.core.ground_truth import Truth
from fedsim.core.groups import state_of
from fedsim.core.memory import Memory
from fedsim.core.params import mismatch
from fedsim.core.rows import Leak, Measure
from fedsim.core.types import Observation, View
from fedsim.run.guesses import UNCERTAINTY, UNDETERMINED
from fedsim.run.notes import row_of
from fedsim.run.originals import Originals
from fedsim.run.prepare import Plan
from fedsim.run.run_folder import RunFolder
from fedsim.run.truth import carried_by, truths_of
from fedsim.run.unnamed import EARLIER, unnamed
from strategies.tape import recorded_rounds, uploads_path
from strategies.tape_views import cohort, views

TruthOf = Callable[[answers.Answer], Truth | None]
PICTURES = "reconstruction"
TEXTS = ("text", "tokens")
ALONE = "rehearsed_alone"  # the metric: how many rehearsed clients could not train together
UNNAMED = "unnamed"  # in place of a client, in a guess about a round without names


def attack_round(
    plan: Plan, folder: RunFolder, round_: int
) -> tuple[list[Leak], list[Measure], dict[str, Tensor]]:
    """Attack every client recorded in a round, and grade the guesses where there is truth.

    Only attacks that are due, on clients that they are for. A client that uploads a canary in
    place of its update has no rows: there is no data in it to find. What attacks compute once
    for all clients of the round is forgotten at its end.

    Returns:
        Ledger rows, notes on answers, and the guesses by `title/client`; shares of entries
        that these do not hold by `title/client/undetermined`, and how uncertain entries are, where
        an attack says so, by `title/client/uncertainty`.

    Raises:
        BadRecording: The round's files are damaged or foreign.
    """
    attacks = [attack for attack in plan.attacks if attack.is_due(round_)]
    if not attacks:
        return [], [], {}
    with Memory(plan.memory) as memory:
        return _attack_views(plan, folder, round_, attacks, memory)


def _attack_views(
    plan: Plan, folder: RunFolder, round_: int, attacks: Sequence[Attack], memory: Memory
) -> tuple[list[Leak], list[Measure], dict[str, Tensor]]:
    plan.auxiliary.rehearsals.counted()  # what costs were estimated from is no part of the round
    all_views = list(views(folder.path, round_, plan.local, memory, plan.sources))
    unfit = _unfit(plan, folder, all_views)
    together = [attack for attack in attacks if FAMILIES[attack.family].of_round]
    apart = [attack for attack in attacks if attack not in together]
    truth_of = _truth_of(plan, folder, attacks, all_views, memory)
    leaks, measures, guesses = _one_by_one(plan, folder, all_views, unfit, apart, truth_of)
    if together:
        latest = {view.latest.update.client: view.latest for view in all_views}
        fit = {client: view for client, view in latest.items() if client not in unfit}
        for answer, truth in _without_names(plan, folder, fit, together, memory):
            rows, note = leakage.grade(answer, truth)
            leaks += rows
            measures += [row_of(note)] if note else []
            if answer.guess is not None:
                guesses[f"{answer.attack.title}/{UNNAMED}"] = answer.guess
    measures += [
        Measure(round_, "server", ALONE, float(count), None, reason)
        for reason, count in plan.auxiliary.rehearsals.counted().items()
    ]
    return leaks, measures, guesses


def _one_by_one(
    plan: Plan,
    folder: RunFolder,
    all_views: Sequence[View],
    unfit: Mapping[str, str],
    attacks: Sequence[Attack],
    truth_of: TruthOf,
) -> tuple[list[Leak], list[Measure], dict[str, Tensor]]:
    """Attack each client, and grade the guesses; arguments as in `_attack_views`."""
    guesses: dict[str, Tensor] = {}
    grades = leakage.Grades()
    to_pool: dict[str, list[tuple[answers.Answer, Truth | None]]] = {}
    fit = [view for view in all_views if view.latest.update.client not in unfit]
    attacked = {
        view.latest.update.client: view
        for view in fit
        if not _carries(plan, folder, view.latest.update.client, view.latest.update.round)
    }
    seed, auxiliary, begun = plan.config.seed, plan.auxiliary, None
    given = answers.attack_together(list(attacked.values()), attacks, auxiliary, seed)
    blinds = answers.blind_together(list(attacked.values()), attacks, auxiliary, seed)
    for view in all_views:
        client = view.latest.update.client
        if client in unfit:
            due = [each for each in attacks if each.is_due(view.latest.update.round, client)]
            for attack in due:
                grades.add(answers.refusal(view, attack, unfit[client]), None)
            continue
        begun = len(grades) if begun is None else begun
        if client not in attacked:
            continue
        for answer in answers.attack_view(view, attacks, auxiliary, seed, given, blinds):
            truth = truth_of(answer)
            grades.add(answer, truth)
            if FAMILIES[answer.attack.family].pool is not None:
                to_pool.setdefault(answer.attack.title, []).append((answer, truth))
            if answer.guess is not None:
                guesses.update(_stored(plan, answer, answer.guess))
    graded = grades.results()
    leaks = [leak for rows, _ in graded for leak in rows]
    for pooled in to_pool.values():
        leaks += leakage.pool(*zip(*pooled, strict=True))
    measures = [row_of(note) for _, note in graded[:begun] if note]
    measures += _about_round(plan, fit[0], attacks) if fit else []
    measures += [row_of(note) for _, note in graded[begun:] if note] if fit else []
    return leaks, measures, guesses


def _without_names(
    plan: Plan,
    folder: RunFolder,
    latest: Mapping[str, Observation],
    attacks: Sequence[Attack],
    memory: Memory,
) -> Iterator[tuple[answers.Answer, Truth]]:
    """Yield the answers of attacks that are shown rounds without names, and who uploaded what.

    A round is attacked if an earlier one is recorded. Clients that upload canaries in place of
    their updates are left out.
    """
    if not latest:
        return
    round_ = next(iter(latest.values())).update.round
    earlier = (number for number in reversed(recorded_rounds(folder.path)) if number < round_)
    keep = 2 + EARLIER // len(latest)  # rounds that are shown, and one

    def name_of(number: int) -> Hashable:
        return folder.path, number, state_of(uploads_path(folder.path, number))

    def opened(number: int) -> dict[str, Observation]:
        compute = lambda: cohort(folder.path, number, plan.local, plan.sources)
        return plan.memory.get(cohort, name_of(number), compute, keep=min(64, keep))

    def rounds() -> Iterator[dict[str, Observation]]:
        yield {c: latest[c] for c in latest if not _carries(plan, folder, c, round_)}
        for number in earlier:
            uploads = opened(number)
            yield {c: uploads[c] for c in uploads if not _carries(plan, folder, c, number)}

    shown = unnamed(rounds(), memory, plan.config.seed, name_of)
    if shown is None or shown.view.latest.update.round != round_:
        return
    for answer in answers.attack_view(shown.view, attacks, plan.auxiliary, plan.config.seed):
        yield answer, shown.truth


def _carries(plan: Plan, folder: RunFolder, client: str, round_: int) -> bool:
    """Return whether a client uploads a canary in place of its update."""
    return carried_by(plan, folder, client, [round_]) is carried.UPDATE


def _truth_of(
    plan: Plan,
    folder: RunFolder,
    attacks: Sequence[Attack],
    all_views: Sequence[View],
    memory: Memory,
) -> TruthOf:
    """Return a function from an answer to the truth that it is graded against."""
    updates = [view.latest.update for view in all_views]
    single = {update.client for update in updates if update.num_clients == 1}
    round_ = updates[0].round if updates else 0
    latest = truths_of(plan, folder, round_, single=single)
    so_far = latest
    if any(attack.over_rounds for attack in attacks):
        so_far = truths_of(plan, folder, round_, so_far=True, single=single)

    originals = plan.memory.get(
        Originals, None, lambda: Originals(plan.federated, plan.config.seed, plan.config.grading)
    )

    def truth_of(answer: answers.Answer) -> Truth | None:
        client = answer.view.latest.update.client
        truth = (so_far if answer.attack.over_rounds else latest)[client]
        if answer.attack.family in TEXTS:
            return originals.texts_of(truth)
        if answer.attack.family != PICTURES:
            return truth
        compute = lambda: originals.of(truth, round_=round_, client=client, memory=memory)
        return memory.get(Originals, (client, answer.attack.over_rounds), compute, keep=2)

    return truth_of


def _unfit(plan: Plan, folder: RunFolder, all_views: Sequence[View]) -> dict[str, str]:
    """Return the clients that were sent another model than the config's, and why.

    Raises:
        BadRecording: All were.
    """
    like, reasons = plan.model.state_dict(), {}
    unfit: dict[str, str] = {}
    for view in all_views:
        sent = view.latest.sent
        if id(sent) not in reasons:  # the view holds it, so that no other takes its id
            reasons[id(sent)] = mismatch(sent, like)
        if reason := reasons[id(sent)]:
            unfit[view.latest.update.client] = (
                f"weights sent: must be of the config's model: {reason}"
            )
    if all_views and len(unfit) == len(all_views):
        latest = all_views[0].latest
        raise BadRecording(
            f"{folder.path}: must be of the config's model, round {latest.update.round}: "
            f"{reasons[id(latest.sent)]}"
        )
    return unfit


def _about_round(plan: Plan, view: View, attacks: Sequence[Attack]) -> list[Measure]:
    """Return what holds for every client of the round, from the first client's view."""
    measures = answers.validity(view, attacks, plan.auxiliary)
    if any(attack.family == PICTURES for attack in attacks):
        from fedsim.explain import hindered

        shape, device = plan.federated.dataset.input_shape, with_doubles(plan.auxiliary.device)
        measures += run_on(device, hindered, plan.model, view.latest, shape)
    return measures


def _stored(plan: Plan, answer: answers.Answer, guess: Tensor) -> dict[str, Tensor]:
    """Return a guess as the run folder keeps it.

    Pictures are in 32 bits, and with them is the share of each entry that no gradient depends on.
    """
    latest = answer.view.latest
    name = f"{answer.attack.title}/{latest.update.client}"
    if answer.attack.family != PICTURES:
        return {name: guess}
    stored = {name: guess.float()}
    if answer.uncertainty is not None:
        stored[f"{name}/{UNCERTAINTY}"] = answer.uncertainty
    if answer.attack.over_rounds or answer.attack.baseline:
        return stored
    from fedsim.explain import undetermined

    device = with_doubles(plan.auxiliary.device)
    shares = run_on(device, undetermined, plan.model, latest, guess)
    return stored | ({} if shares is None else {f"{name}/{UNDETERMINED}": shares})
