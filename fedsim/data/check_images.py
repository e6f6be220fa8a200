"""The door of images: (channels, height, width), pixels in [0, 1] or unsigned bytes."""

from dataclasses import replace

from torch import Tensor

from fedsim.core.accepts import Rule

PART = "data set"
SCALED = Rule(PART, "inputs", "must be pixels in [0, 1] where they are images")
CHANNELS = Rule(PART, "inputs", "must be images of (channels, height, width)")
BYTES = Rule(
    PART,
    "inputs",
    "must not be images of unsigned bytes",
    "become floats, divided by 255 if one is above 1, and a remark says so",
)
CHECKS = (SCALED, CHANNELS, BYTES)
IMAGE_CHANNELS = (1, 3, 4)


def is_bytes(given: object) -> bool:
    """Return whether a tensor or an array is of unsigned 8-bit numbers."""
    return str(getattr(given, "dtype", "")).removeprefix("torch.") == "uint8"


def is_image(values: Tensor) -> bool:
    """Return whether a batch has a form of images, with the channels first."""
    return values.ndim == 4 and values.shape[1] in IMAGE_CHANNELS


def check_image(field: str, images: Tensor) -> None:
    """Refuse images with the channels last, or with 0 to 255 for pixels.

    Raises:
        ValueError: They are.
    """
    _, first, height, last = images.shape
    if last in IMAGE_CHANNELS and first not in IMAGE_CHANNELS and min(first, height) > 4:
        shape = f"shape {tuple(images.shape)}; move the channels to the front"
        raise ValueError(replace(CHANNELS, field=field).message(shape))
    if not is_image(images):
        return
    low, high = float(images.min()), float(images.max())
    if low >= 0 and 1 < high <= 255 and bool((images == images.round()).all()):
        kind = str(images.dtype).removeprefix("torch.")
        value = f"{low:g} to {high:g} ({kind}); divide by 255"
        raise ValueError(replace(SCALED, field=field).message(value))


def remark_on(inputs: object, test_inputs: object, images: Tensor) -> tuple[str, ...]:
    """Return what was made of images of bytes, if they were.

    Args:
        inputs: As given.
        test_inputs: As given.
        images: What became of the inputs.
    """
    fields = {"inputs": inputs, "test_inputs": test_inputs}
    names = [name for name, given in fields.items() if is_bytes(given)]
    if not names or not is_image(images):
        return ()
    return (f"{' and '.join(names)}: unsigned bytes became pixels in [0, 1]",)
