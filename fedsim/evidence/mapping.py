"""Row by row: what a run shows of OWASP AISVS, of CoSAI's risk map, and of a DPIA's questions.

The requirements are paraphrased. Their identifiers are those of the sources:

- OWASP AISVS 1.0 (June 2026), chapters C4 and C11, github.com/OWASP/AISVS at 94fbad5.
- CoSAI Risk Map, risk-map/yaml/risks.yaml, github.com/cosai-oasis/secure-ai-tooling at 18ab1ef
  (August 2026).
- Regulation (EU) 2016/679 (GDPR), Article 35.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from fedsim.evidence.facts import Facts

Status = Literal["shown", "shown in part", "not shown", "not applicable"]
AISVS = "OWASP AISVS 1.0 (94fbad5)"
COSAI = "CoSAI Risk Map (18ab1ef)"
DPIA = "GDPR Art. 35"
SOURCES = (AISVS, COSAI, DPIA)
NOTES = (
    "AISVS: drafts until June 2026 had membership inference as C11.3 and model inversion as C11.4. "
    "Version 1.0 joins both as C11.2, and its C11.3 is about model extraction.",
    "CoSAI names clients as attackers in federated learning. Here the server attacks, which sees "
    "more of each client than other clients do. Attacks by clients were not tested.",
    "The middle column is paraphrased. The identifiers are those of the sources: "
    "github.com/OWASP/AISVS at 94fbad5, chapters C4.3 and C11; "
    "github.com/cosai-oasis/secure-ai-tooling at 18ab1ef, risk-map/yaml/risks.yaml; "
    "Regulation (EU) 2016/679, Article 35.",
)
LEDGER, TEXT = "leakage.csv", "evidence.md"


@dataclass(frozen=True)
class Row:
    """One requirement or question, and what the run says of it.

    Attributes:
        source: One of `SOURCES`.
        id: As in the source.
        asks: What is asked, paraphrased.
        status: Whether the run shows it. `shown` says that there is evidence, not which way it
            points: the figure does.
        figure: What the run shows, or why it shows nothing.
        file: Where in the pack; empty without evidence.
    """

    source: str
    id: str
    asks: str
    status: Status
    figure: str
    file: str = ""


def mapping(facts: Facts) -> list[Row]:
    """Return all rows."""
    return [*_aisvs(facts), *_cosai(facts), *_dpia(facts)]


def _aisvs(facts: Facts) -> Iterator[Row]:
    yield Row(
        AISVS, "11.1.2", "a version-controlled test suite runs on every model update",
        *_gated(facts),
    )  # fmt: skip
    count = len(facts.answers)
    yield Row(
        AISVS, "11.1.3", "the model is evaluated against known attacks that fit its modality",
        "shown in part" if count else "not shown",
        f"{count} attacks on training updates were run; attacks on inputs at inference were not"
        if count else "no attack was run",
        "attacks.csv" if count else "",
    )  # fmt: skip
    no_endpoint = "the run trains a model and serves none"
    for number, asks in (
        ("11.2.1", "inferred sensitive attributes are not returned in outputs"),
        ("11.2.2", "inference endpoints limit the rate of each principal and of all"),
        ("11.2.3", "outputs are calibrated"),
    ):
        yield Row(AISVS, number, asks, "not applicable", no_endpoint)
    yield Row(
        AISVS, "11.2.4", "training on sensitive data is differentially private", *_private(facts)
    )
    yield Row(
        AISVS, "11.2.5", "simulated membership inference does not exceed random guessing",
        *_family(facts, "membership", "range"),
    )  # fmt: skip
    for number, asks in (
        ("11.3.1", "query patterns feed a detector of extraction"),
        ("11.3.2", "raw outputs stay behind the backend"),
        ("11.3.3", "models carry watermarks or fingerprints"),
        ("11.3.4", "suspected extraction triggers a response"),
    ):
        text = f"model extraction: {no_endpoint}"
        yield Row(AISVS, number, asks, "not applicable", text)
    yield Row(
        AISVS, "4.3.1", "edge devices authenticate to central infrastructure", "not shown",
        "the run does not test how nodes authenticate",
    )  # fmt: skip


def _cosai(facts: Facts) -> Iterator[Row]:
    risk = "riskFederatedDistributedTrainingPrivacy"
    for what, families in (
        ("gradient inversion: training samples are reconstructed", ("reconstruction",)),
        ("labels of participants are read from updates", ("label",)),
        ("membership inference", ("membership", "range", "usage")),
        ("property inference: characteristics of a data set", ("property", "distribution")),
        ("which participant holds a record, or whose records these are", ("source", "user")),
    ):
        yield Row(COSAI, risk, what, *_family(facts, *families))
    rounds = len(facts.recorded)
    several: Status = "shown in part" if rounds > 1 and facts.answers else "not shown"
    yield Row(
        COSAI, risk, "information is gathered over many rounds", several,
        f"{rounds} rounds were recorded and attacked one by one; attacks over rounds: "
        + (", ".join(_over_rounds(facts)) or "none"),
        LEDGER if several != "not shown" else "",
    )  # fmt: skip
    yield Row(COSAI, risk, "no differential privacy", *_private(facts))
    sums = bool(facts.config.federation.secure_aggregation) and not facts.config.foreign
    yield Row(
        COSAI, risk, "no masked aggregation: the server sees single updates",
        "not shown" if facts.config.foreign else "shown",
        "how the other app aggregates was not stated" if facts.config.foreign
        else "the server sees sums of cohorts alone" if sums else "the server sees every upload",
        "" if facts.config.foreign else "config.toml",
    )  # fmt: skip
    yield Row(
        COSAI, risk, "malicious or colluding participants", "not shown",
        "the adversary follows the protocol; see the threat model", TEXT,
    )  # fmt: skip
    yield Row(
        COSAI, "riskSensitiveDataDisclosure", "training data leaks through the model",
        "shown in part" if facts.families else "not shown",
        "updates and the weights of every round were attacked; queries of a deployed model were not"
        if facts.families else "no attack was graded",
        LEDGER if facts.families else "",
    )  # fmt: skip
    yield Row(
        COSAI, "riskInferredSensitiveData", "sensitive attributes are inferred",
        *_family(facts, "attribute"),
    )  # fmt: skip
    yield Row(
        COSAI, "riskExcessiveDataHandling", "data is used beyond what is authorised", "not shown",
        "no technical test shows a legal basis",
    )  # fmt: skip


def _dpia(facts: Facts) -> Iterator[Row]:
    owner = "to be answered by the controller"
    yield Row(
        DPIA, "35(1)", "is a high risk likely, so that an assessment is due?", "not shown", owner
    )
    yield Row(DPIA, "35(2)", "advice of the data protection officer", "not shown", owner)
    yield Row(
        DPIA, "35(7)(a)", "systematic description of the processing and its purposes",
        "shown in part", "data flow, model and protocol are described; purposes are not", TEXT,
    )  # fmt: skip
    yield Row(DPIA, "35(7)(b)", "necessity and proportionality", "not shown", owner)
    graded = ", ".join(sorted(facts.families))
    yield Row(
        DPIA, "35(7)(c)", "risks to the rights and freedoms of data subjects",
        "shown in part" if graded else "not shown",
        f"what an honest-but-curious server learns, measured for: {graded}; severity for people is "
        "not" if graded else "no attack was graded",
        LEDGER if graded else "",
    )  # fmt: skip
    names = ", ".join(part.name for part in facts.config.defense)
    yield Row(
        DPIA, "35(7)(d)", "measures against the risks",
        "shown in part" if names else "not shown",
        f"defenses of every client: {names}; organisational measures are not described" if names
        else "no defense is in the run's config",
        TEXT if names else "",
    )  # fmt: skip
    yield Row(DPIA, "35(9)", "views of data subjects", "not shown", owner)
    yield Row(DPIA, "35(11)", "review when the risk changes", *_gated(facts))


def _family(facts: Facts, *families: str) -> tuple[Status, str, str]:
    """Return what attacks of some families show: the one most clearly above blind of each."""
    sentences, status = [], "shown"
    for family in families:
        if finding := facts.findings.get(family):
            sentences += finding.sentences[:2]
    tried = [each for each in facts.answers if each.family in families]
    partly = [each for each in tried if each.counts]
    sentences += [f"{each.title} {each.sentence}." for each in partly]
    if not sentences or not facts.families & set(families):
        text = " ".join(sentences) or "no attack of this kind was run"
        return "not shown", text, "attacks.csv" if tried else ""
    if partly or facts.unfinished:
        status = "shown in part"
    return status, " ".join(sentences), LEDGER  # type: ignore[return-value]


def _private(facts: Facts) -> tuple[Status, str, str]:
    """Return what is promised by differential privacy."""
    promise = facts.whole_promise
    if not facts.config.defense or facts.config.foreign:
        return "not shown", "no defense is in the run's config: no ε is claimed", ""
    if promise is None:
        return "not shown", "a defense of the user's own, which is not imported here", ""
    if not promise.formal or facts.epsilon is None:
        return (
            "not shown",
            "the defenses are heuristics, or ε does not cover all: none is claimed",
            "",
        )
    epsilon, round_ = facts.epsilon
    text = (
        f"ε ≤ {epsilon:.3g} at δ = {promise.delta:g} for the most exposed client after round "
        f"{round_}; neighbours: {promise.relation}; {promise.mechanism}"
    )
    audited = "audited, see the audit" if facts.audited else "not audited"
    beyond = max(facts.folder.finished_rounds, default=0) > round_
    status = "shown in part" if beyond or facts.unfinished else "shown"
    return status, f"{text}; {audited}", "metrics.csv"


def _gated(facts: Facts) -> tuple[Status, str, str]:
    gate = facts.gate
    if gate is None:
        return "not shown", "no rule of fedsim check is in the run's config", ""
    words = [verdict.word for verdict in gate.verdicts]
    text = ", ".join(f"{words.count(word)} {word}" for word in ("pass", "fail", "open"))
    return "shown in part", f"rules of fedsim check on this run: {text}", "gate.json"


def _over_rounds(facts: Facts) -> Sequence[str]:
    from adversary.attacks import ATTACKS

    return [
        each.title
        for each in facts.answers
        if each.attack in ATTACKS and ATTACKS[each.attack].over_rounds and each.answered
    ]
