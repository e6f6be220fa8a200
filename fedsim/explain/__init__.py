"""The explain room: what an architecture gives away, without any data, in numbers and in words.

In: an architecture, how clients train. Out: an `Explanation`; for a run, what hinders its attacks.
"""

from fedsim.explain.architecture import explain
from fedsim.explain.explanation import Explanation
from fedsim.explain.hindrances import hindered, hindrances
from fedsim.explain.of_texts import TextExplanation, explain_texts
from fedsim.explain.undetermined import undetermined

__all__ = [
    "Explanation",
    "TextExplanation",
    "explain",
    "explain_texts",
    "hindered",
    "hindrances",
    "undetermined",
]
