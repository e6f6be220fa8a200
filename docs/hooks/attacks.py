"""All attacks, from their records and the docstrings of their modules."""

import sys
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from typing import Any

from texts import code, docstring, table

from adversary.attack import Attack
from adversary.attacks import ATTACKS
from fedsim.core.catalog import options_of

HEADER = ("attack", "needs", "what it does")
FAMILIES = {
    "label": "Labels",
    "membership": "Membership",
    "range": "Ranges",
    "usage": "Usage of a data set",
    "source": "Source",
    "linkage": "Linkage of uploads",
    "attribute": "Attributes",
    "property": "Properties",
    "distribution": "Distributions",
    "user": "Users",
    "reconstruction": "Reconstruction",
}


def page() -> str:
    """Return a chapter for each family: a table of its attacks, and a section for each module."""
    texts, described = [], set()
    for family in {**FAMILIES, **{attack.family: "" for attack in ATTACKS.values()}}:
        attacks = [attack for attack in ATTACKS.values() if attack.family == family]
        texts += [f"## {FAMILIES.get(family, family.capitalize())}"]
        texts += [table(HEADER, map(row, attacks))]
        modules = defaultdict(list)
        for attack in attacks:
            modules[function(attack).__module__].append(attack)
        for module, records in modules.items():
            texts += section(module, records, again=module in described)
            described.add(module)
    return "\n\n".join(texts)


def function(attack: Attack) -> Callable[..., Any]:
    """Return the function of an attack, without options that its record fixes."""
    infer: Any = attack.infer
    while isinstance(infer, partial):
        infer = infer.func
    return infer


def row(attack: Attack) -> tuple[str, str, str]:
    """Return the cells of one attack."""
    needs = ", ".join(map(code, attack.needs)) or "the update alone"
    return code(attack.name), needs, attack.summary


def section(module: str, attacks: list[Attack], *, again: bool) -> list[str]:
    """Return what a module says of its attacks (a pointer, the second time), and their options."""
    title, _, rest = (sys.modules[module].__doc__ or module).partition("\n")
    short, _, more = title.strip().rstrip(".").partition(": ")
    texts = [f"### {docstring(short)}"]
    if again:
        texts.append("The same method as above.")
    else:
        texts.append(docstring(more[:1].upper() + more[1:]) + "." * bool(more))
        texts.append(marked(rest.strip()))
    names = ", ".join(code(attack.name) for attack in attacks)
    texts.append(f"*In fedsim*: {names}, in `{module.replace('.', '/')}.py`.")
    options = [
        (code(attack.name), code(name), code(option.default))
        for attack in attacks
        for name, option in options_of(attack.infer).items()
    ]
    texts += [table(("attack", "option", "default"), options)] if options else []
    return texts


def marked(text: str) -> str:
    """Return a module's paragraphs; `*Exact when*:` and the like start a paragraph in bold."""
    lines = []
    for line in text.splitlines():
        head, mark, tail = line.partition("*:")
        if line.startswith("*") and mark:
            lines += ["", f"**{head[1:]}**:{docstring(tail)}"]
        elif line.startswith(("Idea:", "What else it uses:")):
            head, _, tail = line.partition(":")
            lines += ["", f"**{head}**:{docstring(tail)}"]
        else:
            lines.append(docstring(line))
    return "\n".join(lines)
