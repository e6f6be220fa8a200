"""What is said of an answer that takes long, while an attack works on it."""

import time
from collections.abc import Callable

from fedsim.core.progress import Step

LONG = 2.0  # seconds of an answer before anything is said of it
PAUSE = 0.2  # seconds between two things that are said


class Answering:
    """Says where an answer is: not of short ones, and not at every step.

    Args:
        say: Prints or shows a text.
        clock: Seconds.
    """

    def __init__(
        self, say: Callable[[str], None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.say, self.clock = say, clock
        self.subject, self.begun, self.said = "", 0.0, 0.0

    def __call__(self, step: Step) -> None:
        """Take note of a step, and say it where it is time."""
        now = self.clock()
        if step.subject != self.subject:
            self.subject, self.begun = step.subject, now
        if now >= self.begun + LONG and now >= self.said + PAUSE:
            self.said = now
            self.say(text_of(step))


def text_of(step: Step) -> str:
    """Return where an answer is: `dlg, client 3: 1,200 of 1,500 iterations`."""
    subject = f"{step.subject}, {step.part}" if step.part else step.subject
    return f"{subject}: {step.done:,} of {step.total:,} {step.what}"
