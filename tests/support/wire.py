"""As much of Postgres' wire protocol as the proxy must understand: where messages end, and which statement one executes."""

import re

READY = b"Z"  # ReadyForQuery: the server has executed, and in autocommit committed, all it was sent
NOTIFICATION = b"A"

_NAME = re.compile(rb"/\* pgrun (\w+) \*/")


class Messages:
    """Cuts the bytes of one direction into messages: a type of one byte, a length that counts itself, a body.

    Args:
        from_client: The first message of a client has no type.
    """

    def __init__(self, *, from_client: bool) -> None:
        self._rest = b""
        self._type_size = 0 if from_client else 1

    def feed(self, data: bytes) -> list[bytes]:
        """The messages that are complete with these bytes."""
        self._rest += data
        whole = []
        while len(self._rest) >= self._type_size + 4:
            size = self._type_size + int.from_bytes(self._rest[self._type_size : self._type_size + 4])
            if len(self._rest) < size:
                break
            whole.append(self._rest[:size])
            self._rest, self._type_size = self._rest[size:], 1
        return whole


class Statements:
    """Knows the statements of one connection, prepared ones too, by the comment that pgrun begins each with."""

    def __init__(self) -> None:
        self._prepared: dict[bytes, str] = {}

    def executed_by(self, message: bytes) -> str | None:
        """Name of the file in `sql/queries` that this message of a client has executed, if it is one of pgrun's."""
        kind, body = message[:1], message[5:]
        if kind == b"P":  # Parse: name, text
            name, _, text = body.partition(b"\0")
            self._prepared[name] = _name_in(text)
        elif kind == b"B":  # Bind: portal, name of what was parsed
            _, _, rest = body.partition(b"\0")
            return self._prepared.get(rest.partition(b"\0")[0]) or None
        elif kind == b"Q":
            return _name_in(body) or None
        return None


def _name_in(text: bytes) -> str:
    found = _NAME.search(text)
    return found[1].decode() if found else ""
