"""Reading `tf.train.Example`, the record of TensorFlow's world, without TensorFlow.

A protocol buffer is a sequence of fields: a number and a wire type, then a varint, four or eight bytes, or a length and
that many bytes. `Example` is nested five levels deep, and what we want of it are byte strings and integers.
"""

from collections.abc import Iterator

_VARINT, _EIGHT, _BYTES, _FOUR = 0, 1, 2, 5
# Example.features, Features.feature (a map: key, value), and the lists of a Feature.
_FEATURES = _ENTRY = _KEY = _BYTES_LIST = _VALUE_OF_LIST = 1
_VALUE = 2
_INT64_LIST = 3


def parse_example(data: bytes) -> dict[str, bytes | int]:
    """The first byte string or integer of each feature; features of floats, and empty ones, are left out.

    Raises:
        ValueError: it is no `tf.train.Example`.
    """
    values: dict[str, bytes | int] = {}
    for features in _messages(data, _FEATURES):
        for entry in _messages(features, _ENTRY):
            key = b"".join(_messages(entry, _KEY)).decode()
            for feature in _messages(entry, _VALUE):
                for kind, content in _fields(feature):
                    first = next(_fields(_as_bytes(content)), None)
                    if first is None or first[0] != _VALUE_OF_LIST:
                        continue
                    if kind == _BYTES_LIST:
                        values[key] = _as_bytes(first[1])
                    elif kind == _INT64_LIST:  # packed into bytes, or not
                        number = first[1] if isinstance(first[1], int) else _varint(first[1], 0)[0]
                        values[key] = number - 2**64 if number >= 2**63 else number
    return values


def _messages(data: bytes, number: int) -> Iterator[bytes]:
    return (_as_bytes(value) for field, value in _fields(data) if field == number)


def _fields(data: bytes) -> Iterator[tuple[int, bytes | int]]:
    position = 0
    while position < len(data):
        tag, position = _varint(data, position)
        number, wire = tag >> 3, tag & 7
        if wire == _VARINT:
            value, position = _varint(data, position)
            yield number, value
            continue
        if wire == _BYTES:
            length, position = _varint(data, position)
        elif wire in (_FOUR, _EIGHT):
            length = 4 if wire == _FOUR else 8
        else:
            raise ValueError(f"wire type {wire}")
        if position + length > len(data):
            raise ValueError("it ends too soon")
        yield number, data[position : position + length]
        position += length


def _varint(data: bytes, position: int) -> tuple[int, int]:
    """Seven bits a byte, the lowest first; the eighth says that more follow."""
    value = 0
    for shift in range(0, 70, 7):
        if position >= len(data):
            raise ValueError("it ends too soon")
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & (2**64 - 1), position
    raise ValueError("a number has more than ten bytes")


def _as_bytes(value: bytes | int) -> bytes:
    if isinstance(value, int):
        raise ValueError("a number where a message belongs")
    return value
