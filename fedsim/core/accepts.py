"""What fedsim accepts: the rules of its doors, from which messages and a docs page are made."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Rule:
    """One thing that is checked where a part comes in.

    Attributes:
        part: The kind of part, as a user calls it: "data set", "model", "recording".
        field: What of the part is looked at: "labels", "any buffer", "`config.toml`".
        rule: What must be so, worded to follow the field: "must be whole numbers from 0".
        otherwise: What happens if it is not so; a refusal if empty.
    """

    part: str
    field: str
    rule: str
    otherwise: str = ""

    def message(self, value: object) -> str:
        """Return the sentence that refuses this value."""
        return f"{self.field}: {self.rule}, got {value}"
