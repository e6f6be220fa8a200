"""What the config's sections are made of."""

import ast
import inspect
import itertools
import math
import textwrap
from typing import Annotated, Any, get_args, get_origin

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from pydantic.fields import FieldInfo

# strict: `true` is no number
Count = Annotated[int, Field(ge=1, strict=True)]
Natural = Annotated[int, Field(ge=0, strict=True)]
Rate = Annotated[float, Field(ge=0, lt=1, strict=True)]
Share = Annotated[float, Field(ge=0, le=1, strict=True)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False, strict=True)]


class Section(BaseModel):
    """A table of the config; a key that it does not know is an error.

    The docstring of a field is its line in the reference and in what `fedsim config` prints.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")


class Part(BaseModel):
    """A part chosen by name; every other key of its table is an option of that part."""

    model_config = ConfigDict(frozen=True, extra="allow")

    name: str
    """Name of the part, or `package.module:function`."""

    @model_validator(mode="after")
    def _finite(self) -> "Part":
        for key, value in self.options.items():
            if isinstance(value, float) and not math.isfinite(value):
                raise ValueError(f"{key}: must be finite, got {value}")
        return self

    @property
    def options(self) -> dict[str, Any]:
        """The keys beside those every part of this kind has."""
        return dict(self.__pydantic_extra__ or {})


def section_of(field: FieldInfo) -> type[BaseModel] | None:
    """Return the table that a field holds; None for a plain value or a list."""
    if get_origin(field.annotation) in (tuple, dict):
        return None
    types = (field.annotation, *get_args(field.annotation))  # `Section | None`
    models = [it for it in types if isinstance(it, type) and issubclass(it, BaseModel)]
    return models[0] if models else None


def descriptions(table: type[BaseModel]) -> dict[str, str]:
    """Return the docstring of each field; of one without, that of the table it is inherited from.

    Pydantic would read the source of every table at import, which takes longer than building them.
    """
    texts: dict[str, str] = {}
    for part in reversed(table.__mro__[: table.__mro__.index(BaseModel)]):
        [definition] = ast.parse(textwrap.dedent(inspect.getsource(part))).body
        assert isinstance(definition, ast.ClassDef)
        for field, text in itertools.pairwise(definition.body):
            match field, text:
                case (
                    ast.AnnAssign(target=ast.Name(id=name)),
                    ast.Expr(value=ast.Constant(value=str(docstring))),
                ):
                    texts[name] = inspect.cleandoc(docstring)
    return texts


def _named(value: object) -> object:
    """Let a bare name stand for a table with that name and no options."""
    return {"name": value} if isinstance(value, str) else value


def or_name(part: type[Part]) -> BeforeValidator:
    """Return what lets a bare name stand for a part with that name and no options."""
    return BeforeValidator(_named, json_schema_input_type=str | part)


def split(value: object) -> object:
    """Let "llg,idlg" stand for a list of names."""
    if isinstance(value, str):
        return [name.strip() for name in value.split(",") if name.strip()]
    return value


def named_list(value: object) -> object:
    """Let "llg,idlg" stand for a list of such tables."""
    value = split(value)
    return [_named(item) for item in value] if isinstance(value, list) else value


def _as_list(value: object) -> object:
    """Let one number stand for a list of it."""
    return [value] if isinstance(value, (int, float)) else value


def _as_text(value: object) -> object:
    """Let a number stand for its text."""
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return str(value) if number else value


# What stands in a file before a validator has read it, for the JSON schema of the config.
Parts = Annotated[
    tuple[Part, ...], BeforeValidator(named_list, json_schema_input_type=str | list[str | Part])
]
Text = Annotated[str, BeforeValidator(_as_text, json_schema_input_type=str | float)]
Names = Annotated[tuple[str, ...], BeforeValidator(split, json_schema_input_type=str | list[str])]
Counts = Annotated[
    tuple[Count, ...],
    Field(min_length=1),
    BeforeValidator(
        _as_list, json_schema_input_type=Count | Annotated[list[Count], Field(min_length=1)]
    ),
]
Shares = Annotated[tuple[Share, ...], Field(min_length=2)]
