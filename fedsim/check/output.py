"""A gate's verdicts for programs: strict JSON, and JUnit's XML as build servers read it."""

from pathlib import Path
from typing import Any
from xml.etree import ElementTree as Xml

from fedsim.check.gate import Gate, Verdict
from fedsim.core.errors import plain
from fedsim.core.files import write_whole


def as_json(gate: Gate) -> dict[str, Any]:
    """Return the verdicts as values of JSON; every number is finite."""
    return {
        "folder": gate.folder,
        "passed": gate.passed,
        "rules": [_as_json(verdict) for verdict in gate.verdicts],
    }


def write_junit(gate: Gate, path: Path) -> None:
    """Write a test suite with a case per rule: a violated one fails, an open one is an error.

    Raises:
        OSError: The file cannot be written.
    """
    words = [verdict.word for verdict in gate.verdicts]
    counts = {"tests": len(words), "failures": words.count("fail"), "errors": words.count("open")}
    attributes = {"name": plain(gate.folder), **{key: str(n) for key, n in counts.items()}}
    root = Xml.Element("testsuites", attributes)
    suite = Xml.SubElement(root, "testsuite", {**attributes, "skipped": "0", "time": "0"})
    for verdict in gate.verdicts:
        about = {"classname": "fedsim.check", "name": plain(verdict.rule.text), "time": "0"}
        case = Xml.SubElement(suite, "testcase", about)
        text = "\n".join(map(plain, (verdict.sentence, *verdict.problems, *verdict.notes)))
        if verdict.word == "pass":
            Xml.SubElement(case, "system-out").text = text
        else:
            kind = "failure" if verdict.word == "fail" else "error"
            message = {"message": plain(verdict.sentence), "type": verdict.word}
            Xml.SubElement(case, kind, message).text = text
    Xml.indent(root)
    data = Xml.tostring(root, encoding="utf-8", xml_declaration=True)
    write_whole(path, lambda file: file.write_bytes(data + b"\n"))


def _as_json(verdict: Verdict) -> dict[str, Any]:
    worst = verdict.worst
    margin = None
    if worst is not None and worst.low is not None and worst.high is not None:
        margin = [worst.low + worst.base, worst.high + worst.base]
    return {
        "rule": verdict.rule.text,
        "verdict": verdict.word,
        "sentence": verdict.sentence,
        "value": worst.value if worst else None,
        "limit": worst.base + verdict.rule.number if worst else None,
        "margin": margin,
        "confidence": verdict.confidence,
        "attack": worst.title if worst else None,
        "where": worst.where if worst else None,
        "of": worst.of if worst else None,
        "compared": verdict.compared,
        "violations": verdict.violations,
        "problems": list(verdict.problems),
        "notes": list(verdict.notes),
    }
