"""A machine for the opcodes of a pickle that cannot import, and cannot call.

A pickle is a program, and loading one the usual way runs whatever it says. This machine knows the few opcodes that a
tree of arrays needs. Globals are names to it; what a name, a "call" and a "state" mean is left to a subclass
(`_pickle.py`), which only ever compares and records them. Long payloads stay positions in the file.

References:
    Python's `pickletools` documents every opcode; PEP 3154 and PEP 574 describe protocols 4 and 5.
"""

import dataclasses
import pickle
import pickletools
from typing import Any, Literal

from nfnet_eqx.convert._bytes import FileBytes

# NFNet-F7 takes about 60,000 opcodes; at most a few hundred bytes are kept for each.
MAX_OPCODES = 1 << 18
# Longer strings and byte strings are left in the file. Module names have about 50 characters.
MAX_TEXT = 256


class Fault(Exception):
    """What is wrong with a pickle."""


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Global:
    """A name that the file asks for, and what it means here (`"refused"`: nothing)."""

    name: str
    role: str


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Span:
    """Bytes that stay in the file.

    They are data as they are, the UTF-8 of a string, or (`"latin1"`) the UTF-8 of a string whose characters are the
    data: so protocol 2 writes it.
    """

    start: int
    stop: int
    form: Literal["bytes", "text", "latin1"] = "bytes"


_MARK = object()


class Machine:
    """One run over a file. Every object it makes is inert: numbers, short strings, tuples, dictionaries, records.

    Attributes:
        refused: the names in the file that nothing here needs, in the file's order. The run goes on behind one, so
            that all of them can be reported.
    """

    def __init__(self, data: FileBytes) -> None:
        """A machine at the beginning of `data`."""
        self.data = data
        self.at = 0
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}
        self.refused: dict[str, None] = {}

    def named(self, module: str, name: str) -> Global:
        """The meaning of a global."""
        raise NotImplementedError

    def call(self, function: Any, arguments: Any) -> Any:
        """The value that stands for `function(*arguments)`."""
        raise NotImplementedError

    def set_state(self, target: Any, state: Any) -> None:
        """Gives `target` a state, as its `__setstate__` would."""
        raise NotImplementedError

    def run(self) -> Any:
        """The value that the pickle ends with.

        Raises:
            Fault: the file is damaged or uses an opcode that has no place here.
        """
        if self.take(1) != pickle.PROTO or not 2 <= self.number(1) <= 5:
            raise Fault("it is no pickle of protocol 2 to 5")
        for _ in range(MAX_OPCODES):
            opcode = self.take(1)
            if opcode == pickle.STOP:
                tree = self.pop()
                if self.stack:
                    raise Fault("the pickle ends with values left over")
                if self.at != len(self.data):
                    raise Fault(f"{len(self.data) - self.at} bytes follow the end of the pickle")
                return tree
            self.step(opcode)
        raise Fault(f"the pickle has more than {MAX_OPCODES} opcodes")

    def step(self, opcode: bytes) -> None:
        """Does one opcode."""
        match opcode:
            case pickle.FRAME:
                self.take(8)
            case pickle.NONE:
                self.stack.append(None)
            case pickle.NEWTRUE:
                self.stack.append(True)
            case pickle.NEWFALSE:
                self.stack.append(False)
            case pickle.BININT:
                self.stack.append(self.number(4, signed=True))
            case pickle.BININT1:
                self.stack.append(self.number(1))
            case pickle.BININT2:
                self.stack.append(self.number(2))
            case pickle.LONG1:
                self.stack.append(self.long(self.number(1)))
            case pickle.SHORT_BINUNICODE:
                self.stack.append(self.text(self.number(1)))
            case pickle.BINUNICODE:
                self.stack.append(self.text(self.number(4)))
            case pickle.BINUNICODE8:
                self.stack.append(self.text(self.number(8)))
            case pickle.SHORT_BINBYTES:
                self.stack.append(self.raw(self.number(1)))
            case pickle.BINBYTES:
                self.stack.append(self.raw(self.number(4)))
            case pickle.BINBYTES8 | pickle.BYTEARRAY8:
                self.stack.append(self.raw(self.number(8)))
            case pickle.MARK:
                self.stack.append(_MARK)
            case pickle.EMPTY_TUPLE:
                self.stack.append(())
            case pickle.TUPLE1:
                self.stack.append(self.pop_many(1))
            case pickle.TUPLE2:
                self.stack.append(self.pop_many(2))
            case pickle.TUPLE3:
                self.stack.append(self.pop_many(3))
            case pickle.TUPLE:
                self.stack.append(self.pop_to_mark())
            case pickle.EMPTY_DICT:
                self.stack.append({})
            case pickle.SETITEM:
                self.set_items(self.pop_many(2))
            case pickle.SETITEMS:
                self.set_items(self.pop_to_mark())
            case pickle.BINPUT:
                self.memo[self.number(1)] = self.top()
            case pickle.LONG_BINPUT:
                self.memo[self.number(4)] = self.top()
            case pickle.MEMOIZE:
                self.memo[len(self.memo)] = self.top()
            case pickle.BINGET:
                self.stack.append(self.recall(self.number(1)))
            case pickle.LONG_BINGET:
                self.stack.append(self.recall(self.number(4)))
            case pickle.GLOBAL:
                module, name = self.line(), self.line()
                self.stack.append(self.named(module, name))
            case pickle.STACK_GLOBAL:
                module, name = self.pop_many(2)
                if not (isinstance(module, str) and isinstance(name, str)):
                    raise Fault("a global is named by something other than two strings")
                self.stack.append(self.named(module, name))
            case pickle.INST:
                # Makes an instance of a class that it names itself: report the name.
                module, name = self.line(), self.line()
                self.refused[f"{module}.{name}"] = None
                raise Fault("it makes an object by opcode INST")
            case pickle.REDUCE:
                function, arguments = self.pop_many(2)
                self.stack.append(self.call(function, arguments))
            case pickle.BUILD:
                state = self.pop()
                self.set_state(self.top(), state)
            case _:
                known = [
                    f"opcode {known.name}" for known in pickletools.opcodes if known.code.encode("latin1") == opcode
                ]
                raise Fault(
                    f"{(*known, f'byte {opcode!r}')[0]} at offset {self.at - 1} has no place in a tree of arrays"
                )

    # The file.

    def take(self, count: int) -> bytes:
        """The next `count` bytes."""
        if count > len(self.data) - self.at:
            raise Fault(f"the file ends inside the pickle, after {len(self.data)} bytes")
        self.at += count
        return self.data.read(self.at - count, count)

    def number(self, count: int, signed: bool = False) -> int:
        """The next `count` bytes as an integer."""
        return int.from_bytes(self.take(count), "little", signed=signed)

    def long(self, count: int) -> int:
        """The same, for a length that the file states."""
        if count > 8:
            raise Fault(f"the integer at offset {self.at} has {count} bytes; sizes have at most 8")
        return self.number(count, signed=True)

    def raw(self, count: int) -> bytes | Span:
        """The next `count` bytes, or where they are if they are many."""
        if count <= MAX_TEXT:
            return self.take(count)
        if count > len(self.data) - self.at:
            raise Fault(f"{count} bytes are claimed at offset {self.at}, but the file has {len(self.data)} in all")
        self.at += count
        return Span(self.at - count, self.at)

    def text(self, count: int) -> str | Span:
        """The next `count` bytes as a string, or where they are if they are many."""
        content = self.raw(count)
        if isinstance(content, Span):
            return dataclasses.replace(content, form="text")
        try:
            return content.decode("utf-8")
        except UnicodeDecodeError:
            raise Fault(f"the string at offset {self.at - count} is not UTF-8") from None

    def line(self) -> str:
        """The text up to the next newline."""
        found, newline, _ = self.data.read(self.at, min(MAX_TEXT, len(self.data) - self.at)).partition(b"\n")
        if not newline:
            raise Fault(f"the global named at offset {self.at} has no end")
        self.at += len(found) + 1
        return found.decode("utf-8", errors="replace")

    # The stack.

    def top(self) -> Any:
        """The last value on the stack."""
        if not self.stack or self.stack[-1] is _MARK:
            raise Fault("the pickle takes a value from an empty stack")
        return self.stack[-1]

    def pop(self) -> Any:
        """Takes the last value off the stack."""
        value = self.top()
        self.stack.pop()
        return value

    def pop_many(self, count: int) -> tuple[Any, ...]:
        """Takes the last `count` values off the stack."""
        return tuple(self.pop() for _ in range(count))[::-1]

    def pop_to_mark(self) -> tuple[Any, ...]:
        """Takes the values behind the last mark, and the mark, off the stack."""
        items = []
        while self.stack and self.stack[-1] is not _MARK:
            items.append(self.stack.pop())
        if not self.stack:
            raise Fault("the pickle takes more values than it made")
        self.stack.pop()
        return tuple(reversed(items))

    def recall(self, index: int) -> Any:
        """A value that was kept."""
        if index not in self.memo:
            raise Fault(f"the pickle recalls value {index}, which it never kept")
        return self.memo[index]

    def set_items(self, items: tuple[Any, ...]) -> None:
        """Puts keys and values into the dictionary on top of the stack."""
        target = self.top()
        if type(target) is not dict or len(items) % 2:
            raise Fault("items are set on something that is not a dictionary")
        for key, value in zip(items[::2], items[1::2], strict=True):
            # Only strings: hashing a nested tuple could take forever.
            if type(key) is not str:
                raise Fault(f"a dictionary has {kind(key)} for a key; names are strings of at most {MAX_TEXT} bytes")
            if key in target:
                raise Fault(f"a dictionary has the key {key!r} twice")
            target[key] = value


def kind(value: Any) -> str:
    """What `value` is, in words; never its content, which may be endless."""
    match value:
        case Global():
            return f"the global {value.name!r}"
        case Span(form="bytes") | bytes():
            return "a byte string"
        case Span() | str():
            return "a string"
        case None | bool() | int():
            return f"the value {value}"
        case _:
            return f"a {type(value).__name__.strip('_').lower()}"
