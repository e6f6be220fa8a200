"""The pack's text for people, as Markdown."""

from collections.abc import Iterable, Iterator, Sequence

from fedsim.core.errors import plain
from fedsim.core.units import name_of, written
from fedsim.evidence.facts import Facts
from fedsim.evidence.mapping import NOTES, Row, mapping
from fedsim.evidence.threat import OUTSIDE, threat_model
from fedsim.report.facts import facts_of, part_text

PERSONAL = (
    "The report's pictures of recovered examples are personal data if the originals are. Keep this "
    "folder as you keep the originals."
)
ABSENT = (
    "Who ran the exercise, on whose authority, and when the run was made.",
    "A signature: checksums show that files are unchanged, not who wrote them.",
    "How many people the data are about, and what a recovered value means for them.",
    "A second opinion: attacks and grades are by the same program. The ledger has every value.",
    "How the machines of the federation are administered, and who can read their disks.",
)
NO_PICTURES = "The report is without pictures of recovered examples."


def text(facts: Facts, *, files: Sequence[str], pictures: bool, created: str) -> str:
    """Return the whole text.

    Args:
        facts: Of the run.
        files: Names of the pack's files, and what each holds.
        pictures: Whether the report shows recovered examples.
        created: The date.
    """
    parts = [
        f"# Evidence: {cell(facts.run.name)}\n\nCreated {created} by fedsim.",
        "This folder says what a red-team exercise measured on one run. It is no statement about "
        "other attacks, other data or other seeds. A small number is no promise: it is what these "
        "attacks recovered with this knowledge.",
        *_section("What was run", _lines(_run(facts))),
        *_section("Threat model", _lines(threat_model(facts))),
        *_section("What the attacks recovered", _findings(facts)),
        *_section("Attacks", _attacks(facts)),
        *_section("Defenses and their promises", _lines(_defenses(facts))),
        *_section("Audits", _lines(_audits(facts))),
        *_section("What was not tested", _lines(not_tested(facts))),
        *_section("Requirements and questions", _mapping(mapping(facts))),
        *_section("What this folder does not hold", _lines(ABSENT)),
        *_section("Files", _lines([*files, PERSONAL if pictures else NO_PICTURES])),
    ]
    return "\n\n".join(parts) + "\n"


def cell(value: object) -> str:
    """Return somebody's text as it can stand in a cell of Markdown: no markup, one line."""
    line = plain(value).replace("\\", "\\\\")
    for mark in "|`*_[]#":
        line = line.replace(mark, f"\\{mark}")
    return line.replace("<", "&lt;").replace(">", "&gt;")


def not_tested(facts: Facts) -> list[str]:
    """Return what this run says nothing about."""
    config, sentences = facts.config, []
    if facts.unfinished:
        sentences.append(f"The run is not whole: {facts.unfinished}.")
    if facts.untouched:
        sentences.append(f"No attack was run on: {', '.join(facts.untouched)}.")
    for family, names in facts.not_run.items():
        if family not in facts.untouched:
            sentences.append(f"Attacks on {family} that were not run: {', '.join(names)}.")
    silent = [each.title for each in facts.answers if not each.answered]
    if silent:
        sentences.append(f"Attacks that gave no answer: {', '.join(silent)}. What they would "
                         "recover is not measured.")  # fmt: skip
    sentences += [f"Other uploads than these: {it}." for it in facts.run.in_part]
    if facts.never_attacked:
        sentences.append(
            f"Clients of which no upload was attacked: {facts.never_attacked} of "
            f"{config.federation.clients}."
        )
    if config.defense and not config.auxiliary.knows_defense:
        sentences.append("An adversary that knows the clients' defenses.")
    if config.record.every > 1 or config.record.clients is not None:
        sentences.append("Uploads that were not kept: see [record] in config.toml.")
    if not facts.audited:
        sentences.append("No claim was audited with canaries.")
    sentences.append(f"Other seeds: this is one run, of seed {config.seed}.")
    return [*sentences, *(f"Outside the threat model: {it}." for it in OUTSIDE)]


def _section(title: str, lines: Iterable[str]) -> Iterator[str]:
    yield f"## {title}"
    yield "\n".join(lines)


def _lines(sentences: Iterable[str]) -> Iterator[str]:
    return (f"- {cell(sentence)}" for sentence in sentences)


def _run(facts: Facts) -> Iterator[str]:
    yield from (f"{name}: {fact}" for name, fact in facts_of(facts.config).items())
    rounds, values = facts.run.accuracy
    if len(values):
        yield f"Test accuracy: {100 * values[-1]:.1f} % after round {rounds[-1]}"
    if not facts.config.foreign:
        yield "To repeat it: fedsim run config.toml --out NEW, with the versions of versions.json"


def _findings(facts: Facts) -> Iterator[str]:
    if not facts.findings:
        yield f"- {'No attack was graded.' if facts.answers else 'No attack was run.'}"
    for finding in facts.findings.values():
        yield f"- {cell(' '.join(finding.sentences))}"
    for sentence in facts.verdict.limits if facts.answers else ():
        yield f"- {cell(sentence)}"


def _attacks(facts: Facts) -> Iterator[str]:
    yield "| attack | family | updates | answered | failed | refused | value | blind | reason |"
    yield "| --- | --- | --- | --- | --- | --- | --- | --- | --- |"
    for each in facts.answers:
        curve = facts.curves.get(each.title)
        value = blind = "–"
        if curve is not None:
            value = f"{name_of(curve.metric)} {written(curve.metric, curve.main.value)}"
            blind = written(curve.metric, curve.main.blind_value)
        columns = (
            each.title, each.family, each.updates, each.answered, each.failed, each.refused,
            value, blind, each.reason,
        )  # fmt: skip
        yield f"| {' | '.join(map(cell, columns))} |"


def _defenses(facts: Facts) -> Iterator[str]:
    if facts.config.foreign:
        yield "Another app's clients: their defenses were not stated."
        return
    for part in facts.config.defense:
        promise = facts.promise(part)
        if promise is None:
            yield f"{part_text(part)}: the user's own; its promise is not known here."
        elif promise.formal:
            about = f"{promise.statement}; neighbours: {promise.relation}; {promise.mechanism}"
            yield f"{part_text(part)}: {about}; δ = {promise.delta:g}."
        else:
            yield f"{part_text(part)}: no promise. {promise.statement}."
    whole = facts.whole_promise
    if not facts.config.defense:
        yield "None in the run's config: nothing is promised."
    elif whole is None or not whole.formal:
        yield "Together: no promise, no ε is claimed."
    elif facts.epsilon is None:
        yield "Together: no ε was worked out, because it would not cover all that clients upload."
    else:
        epsilon, round_ = facts.epsilon
        yield (
            f"Together: ε ≤ {epsilon:.4g} at δ = {whole.delta:g} of the most exposed client "
            f"after round {round_}; neighbours: {whole.relation}; {whole.mechanism}."
        )


def _audits(facts: Facts) -> Iterator[str]:
    if not facts.audited:
        yield "None."
    rows = facts.run.audits.to_pylist()
    last = max((row["round"] for row in rows), default=0)
    for row in rows:
        if row["round"] == last:
            value = "no number" if row["value"] is None else f"{row['value']:.3g}"
            claim = "none" if row["ceiling"] is None else f"{row['ceiling']:.3g}"
            what = f"{row['attack']}, {row['metric']} {value}, claim {claim}"
            yield f"In the run, until round {last}: {what}."
    if facts.audit_folder:
        yield "The results of fedsim audit are in audit/."
    if facts.games_folder:
        yield "The results of fedsim game are in game/."


def _mapping(rows: Sequence[Row]) -> Iterator[str]:
    yield "Status says whether there is evidence, not which way it points: the figure does.\n"
    yield from _lines(NOTES)
    yield ""
    yield "| source | id | asks | status | figure | file |"
    yield "| --- | --- | --- | --- | --- | --- |"
    for row in rows:
        columns = (row.source, row.id, row.asks, row.status, row.figure, row.file or "–")
        yield f"| {' | '.join(map(cell, columns))} |"
