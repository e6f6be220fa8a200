"""A checksum inside a file, so that damage is noticed before the file is used.

A sealed file holds the text `fedsim-crc32:` and eight hexadecimal digits. They are the CRC-32 of
all its bytes, with zeros in place of the digits. So one rename writes a file and its checksum.

CRC-32 finds accidents: each flipped bit, each burst of up to 32 bits, and all but one in 4·10⁹ of
other changes. It stops nobody who changes a file on purpose, because anybody can seal it again.
Against forgery stand the fingerprints of `fedsim/run/trust.py`, and the rules on what a file may
hold, which come after the checksum.
"""

import zlib
from functools import lru_cache
from pathlib import Path

from fedsim.core.accepts import Rule
from fedsim.core.errors import BadRecording

SEAL = Rule("recording", "every file", "must be as it was written, by its checksum")
SIZE = Rule("recording", "text files and lists", "must have at most 64 MiB")
CHECKS = (SEAL, SIZE)
MARK = b"fedsim-crc32:"
UNSEALED = "fedsim-crc32:00000000"  # to be written where the digits shall stand
_ZEROS, _PARQUET = b"00000000", b"PAR1"
_HEAD, _TAIL = 256, 65536  # bytes in which the mark is looked for; a parquet file has it at its end
_BLOCK, _MOST = 2**20, 2**26
_POLYNOMIAL, _ONE = 0xEDB88320, 2**31


def sealed(data: bytes) -> bytes:
    """Return the bytes of a file with its checksum in the place of `UNSEALED`."""
    place = _place(data)
    assert data[place : place + 8] == _ZEROS
    return data[:place] + digits_of(zlib.crc32(data)) + data[place + 8 :]


def digits_of(checksum: int) -> bytes:
    """Return a checksum as it stands in a file."""
    return f"{checksum:08x}".encode()


def combined(first: int, second: int, length: int) -> int:
    """Return the CRC-32 of two parts one after the other, from those of the parts.

    Source: zlib's `crc32_combine`: appending n zero bytes multiplies by x^(8n) modulo CRC-32's
    polynomial; polynomials are 32 bits, the highest for x⁰.

    Args:
        first: Of the first part.
        second: Of the second part.
        length: Bytes of the second part.
    """
    power, factor = _powers(), _ONE
    for place in range(length.bit_length()):
        if length >> place & 1:
            factor = _times(power[(place + 3) % 32], factor)
    return _times(factor, first) ^ second


@lru_cache(maxsize=1)
def _powers() -> list[int]:
    """Return x^(2^k) for k from 0 to 31; from there on they repeat."""
    powers = [_ONE >> 1]
    while len(powers) < 32:
        powers.append(_times(powers[-1], powers[-1]))
    return powers


def _times(left: int, right: int) -> int:
    """Return the product of two polynomials modulo CRC-32's."""
    product, bit = 0, _ONE
    while bit:
        if left & bit:
            product ^= right
        right = right >> 1 ^ (_POLYNOMIAL if right & 1 else 0)
        bit >>= 1
    return product


def digits_in(path: Path) -> str:
    """Return the digits in a file, without checking that they are those of its bytes.

    Raises:
        BadRecording: There are none.
    """
    if not path.is_file():
        raise BadRecording(f"{path}: the file is missing")
    with path.open("rb") as file:
        data = file.read(_HEAD)
        if data.startswith(_PARQUET):
            file.seek(max(0, path.stat().st_size - _TAIL))
            data = _PARQUET + file.read()
    place = _place(data)
    if place < 0:
        raise BadRecording(f"{path}: {SEAL.rule}, got none in it")
    return data[place : place + 8].decode("ascii", "replace")


def read(path: Path, most: int = _MOST) -> bytes:
    """Return the bytes of a small sealed file.

    Raises:
        BadRecording: It is missing, too large, or not as it was written.
    """
    try:
        with path.open("rb") as file:
            data = file.read(most + 1)
    except (FileNotFoundError, IsADirectoryError):
        raise BadRecording(f"{path}: the file is missing") from None
    if len(data) > most:
        raise BadRecording(f"{path}: must have at most {most} bytes, got more")
    place = _place(data)
    if place < 0:
        raise BadRecording(f"{path}: {SEAL.rule}, got none in it")
    blank = data[:place] + _ZEROS + data[place + 8 :]
    if digits_of(zlib.crc32(blank)) != data[place : place + 8]:
        raise BadRecording(f"{path}: {SEAL.rule}, got other bytes")
    return data


def check(path: Path) -> None:
    """Check a file of any size that has its mark at its beginning, a block at a time.

    Raises:
        BadRecording: It is missing or not as it was written.
    """
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD)
            place = _place(head)
            if place < 0:
                raise BadRecording(f"{path}: {SEAL.rule}, got none in it")
            checksum = zlib.crc32(head[:place] + _ZEROS + head[place + 8 :])
            while block := file.read(_BLOCK):
                checksum = zlib.crc32(block, checksum)
    except (FileNotFoundError, IsADirectoryError):
        raise BadRecording(f"{path}: the file is missing") from None
    if digits_of(checksum) != head[place : place + 8]:
        raise BadRecording(f"{path}: {SEAL.rule}, got other bytes")


def _place(data: bytes) -> int:
    """Return where the digits begin; −1 without a mark."""
    if data.startswith(_PARQUET):
        place = data.rfind(MARK, max(0, len(data) - _TAIL))
    else:
        place = data.find(MARK, 0, _HEAD)
    return place + len(MARK) if 0 <= place <= len(data) - len(MARK) - 8 else -1
