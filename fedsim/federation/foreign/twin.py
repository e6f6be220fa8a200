"""The torch twin of another framework's model: which array of a tape is which of its own.

In: names and shapes on both sides. Out: a `Source` for each name of the twin, or one sentence.
Dense kernels are stored in×out by Keras and Flax, and convolutions with channels last; torch and
scikit-learn store out×in, and channels first.
"""

import tomllib
from collections.abc import Mapping
from pathlib import Path

from pydantic import TypeAdapter, ValidationError
from torch import nn

from fedsim.config import Source
from fedsim.core.accepts import Rule
from fedsim.core.catalog import lower_first
from fedsim.core.errors import ConfigError
from fedsim.core.types import Params

Shapes = Mapping[str, tuple[int, ...]]
Sources = Mapping[str, Source]

IN_ORDER = "in-order"
WHICH = Rule(
    "twin of a model",
    "--arrays",
    "must say which array on tape is which, in a TOML file with lines such as "
    '"fc.weight" = {name = "0", axes = [1, 0]}',
)
EQUAL_SHAPES = Rule(
    "twin of a model",
    "--arrays",
    f"must be {IN_ORDER} or a TOML file where several arrays on tape have one shape",
)
FITS = Rule("twin of a model", "--arrays", "must name an array on tape of the model's own shape")
CHECKS = (WHICH, EQUAL_SHAPES, FITS)


def shapes_of(params: Params) -> dict[str, tuple[int, ...]]:
    """Return names and shapes."""
    return {name: tuple(value.shape) for name, value in params.items()}


def read_arrays(path: Path) -> dict[str, Source]:
    """Return what a user's file says of each array of the twin.

    Raises:
        ConfigError: It is no file, no TOML, or a line is wrong.
    """
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
        given = {name: {"name": it} if isinstance(it, str) else it for name, it in tables.items()}
        return TypeAdapter(dict[str, Source]).validate_python(given)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise ConfigError(f"--arrays: {place}: {lower_first(first['msg'])}") from None
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"--arrays: must be {IN_ORDER} or a TOML file, got {path} ({error})"
        ) from None


def by_name(model: nn.Module, twin: Shapes, tape: Shapes) -> dict[str, Source] | None:
    """Return which array on tape is which of the twin's, where names say it; None elsewhere.

    An app may send more than travels here: frozen parameters, and second names. Another may send
    what `peft.get_peft_model_state_dict` gives, which leaves the adapter's name "default" out.
    """
    whole = {name for name, _ in model.named_parameters(remove_duplicate=False)}
    for name_on_tape, more in ((str, whole), (_without_adapter, set[str]())):
        sources = {name: Source(name=name_on_tape(name)) for name in twin}
        fits = all(tape.get(it.name) == twin[name] for name, it in sources.items())
        if fits and set(tape) <= {it.name for it in sources.values()} | more:
            return sources
    return None


def _without_adapter(name: str) -> str:
    return name.replace(".modules_to_save.default", "").replace(".default", "")


def propose(twin: Shapes, tape: Shapes, *, in_order: bool = False) -> dict[str, Source]:
    """Return which array on tape is which of the twin's, as far as shapes decide it.

    Either all kernels on tape are stored as torch does, or all the other way round. Where the
    twin's arrays stand in the tape's order, with the same shapes one by one, that order counts;
    else an array is found by its shape.

    Args:
        twin: Names and shapes of the model.
        tape: Those on tape, as many.
        in_order: Whether arrays of one shape are taken in the order in which they stand.

    Raises:
        ConfigError: The shapes do not decide.
    """
    if set(twin) == set(tape):
        tape = {name: tape[name] for name in twin}
    layouts = {turned: _turned(tape, turned=turned) for turned in (False, True)}
    fitting = [it for it, of in layouts.items() if sorted(of.values()) == sorted(twin.values())]
    if not fitting:
        raise ConfigError(WHICH.message(_misfit(twin, tape)))
    aligned = [it for it in fitting if list(layouts[it].values()) == list(twin.values())]
    likely = aligned or fitting
    if len(likely) > 1 and any(len(shape) > 1 for shape in tape.values()):
        square = next(name for name, shape in tape.items() if len(shape) > 1)
        raise ConfigError(WHICH.message(f"'{square}', which fits both ways round"))
    turned = likely[0]
    pairs = zip(twin, tape, strict=True) if aligned else _by_shape(twin, layouts[turned], in_order)
    return {
        name: Source(name=recorded, axes=_axes(len(tape[recorded])) if turned else ())
        for name, recorded in pairs
    }


def check(twin: Shapes, tape: Shapes, sources: Sources) -> None:
    """Check that each array of the twin is one of its shape on tape, and no two are the same.

    Raises:
        ConfigError: It is not.
    """
    for name, shape in twin.items():
        if name not in sources:
            raise ConfigError(FITS.message(f"none for {name}"))
        source = sources[name]
        if source.name not in tape:
            raise ConfigError(FITS.message(f"'{source.name}' for {name}"))
        recorded, axes = tape[source.name], source.axes
        if axes and sorted(axes) != list(range(len(recorded))):
            raise ConfigError(FITS.message(f"axes {list(axes)} for {name} of shape {recorded}"))
        got = tuple(recorded[axis] for axis in axes) if axes else recorded
        if got != shape:
            raise ConfigError(FITS.message(f"{got} for {name} of shape {shape}"))
    if unknown := set(sources) - set(twin):
        raise ConfigError(FITS.message(f"'{min(unknown)}', which the model does not have"))
    names = [source.name for source in sources.values()]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise ConfigError(FITS.message(f"'{twice}' twice"))


def head_sources(tape: Shapes, weight: str, bias: str | None, classes: int | None) -> Sources:
    """Return where the head's weight, turned to out×in, and its bias are on tape.

    Args:
        tape: Names and shapes.
        weight: Name of the head's weight on tape.
        bias: Of its bias; None for a head without.
        classes: Number of labels; as many as the bias has entries if None.

    Raises:
        ConfigError: They are no head of that many classes.
    """
    for flag, name, axes in (("weight", weight, 2), ("bias", bias, 1)):
        if name is not None and (name not in tape or len(tape[name]) != axes):
            got = f"'{name}' of shape {tape[name]}" if name in tape else f"'{name}'"
            some = ", ".join(f"'{it}' {of}" for it, of in tape.items() if len(of) == axes)
            raise ConfigError(
                f"--head-{flag}: must be an array of {axes} axes on tape ({some or 'none'}), "
                f"got {got}"
            )
    entries = None if bias is None else tape[bias][0]
    if classes is not None and entries is not None and classes != entries:
        raise ConfigError(f"--num-classes: must be the head's {entries}, got {classes}")
    classes = classes or entries
    if classes is None:
        raise ConfigError("--num-classes: must be given for a head without bias, got none")
    shape = tape[weight]
    if classes not in shape:
        raise ConfigError(
            f"--head-weight: must have {classes} rows or columns, one a class, got {shape}"
        )
    if shape[0] == shape[1]:
        raise ConfigError(
            f"--head-weight: must not be square, because nothing says which way round it is, "
            f"got {shape}; give --model and --arrays"
        )
    axes = () if shape[0] == classes else (1, 0)
    sources = {"weight": Source(name=weight, axes=axes)}
    return sources if bias is None else {**sources, "bias": Source(name=bias)}


def without_counters(model: nn.Module, count: int) -> nn.Module:
    """Take the counters of batches out of a model, where a tape of `count` arrays has none."""
    if count >= len(model.state_dict()):
        return model
    for module in model.modules():
        if getattr(module, "num_batches_tracked", None) is not None:
            module.register_buffer("num_batches_tracked", None)
    return model


def _axes(count: int) -> tuple[int, ...]:
    """Return the order of a kernel's axes, channels last, that puts out and in first."""
    return (count - 1, count - 2, *range(count - 2)) if count > 1 else ()


def _turned(tape: Shapes, *, turned: bool) -> dict[str, tuple[int, ...]]:
    if not turned:
        return dict(tape)
    return {n: tuple(of[axis] for axis in _axes(len(of))) or of for n, of in tape.items()}


def _by_shape(twin: Shapes, tape: Shapes, in_order: bool) -> list[tuple[str, str]]:
    """Pair names of equal shape.

    Raises:
        ConfigError: Several have one shape, and nobody said that they stand in order.
    """
    pairs = []
    for shape in dict.fromkeys(twin.values()):
        mine = [name for name, of in twin.items() if of == shape]
        theirs = [name for name, of in tape.items() if of == shape]
        if len(mine) > 1 and not in_order:
            raise ConfigError(EQUAL_SHAPES.message(f"{', '.join(theirs)} for {', '.join(mine)}"))
        pairs += zip(mine, theirs, strict=True)
    order = list(twin)
    return sorted(pairs, key=lambda pair: order.index(pair[0]))


def _misfit(twin: Shapes, tape: Shapes) -> str:
    """Return an array of the twin for which there is none of its shape, either way round."""
    shapes = {*tape.values(), *_turned(tape, turned=True).values()}
    for name, shape in twin.items():
        if shape not in shapes:
            return f"none of shape {shape} for {name}"
    return "kernels stored both ways"
