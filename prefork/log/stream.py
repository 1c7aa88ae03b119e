"""Text streams whose lines become events: ``wsgi.errors``, and standard output where it is captured.

Runs in molds and workers, in any thread of the application.
"""

from __future__ import annotations

import io
import threading
from collections.abc import Iterable

from prefork.log.log import Log

_PARTIAL_LIMIT = 32 * 1024


class _Partial(threading.local):
    """What a thread has written since its last line end: threads cannot mix their lines."""

    text = ""


class LogStream(io.TextIOBase):
    """A text stream that writes to a log.

    What one call writes stays one event, so a record of ``logging`` keeps its traceback; an unfinished line
    waits for its end or for a flush. Bytes may be written to ``buffer``.
    """

    encoding = "utf-8"
    errors = "backslashreplace"

    def __init__(self, log: Log, level: str, event: str) -> None:
        super().__init__()
        self.log = log
        self.buffer = _Bytes(self)
        self._level = level
        self._event = event
        self._partial = _Partial()

    def writable(self) -> bool:
        return True

    def write(self, text: str, /) -> int:
        if not isinstance(text, str):
            raise TypeError(f"write() argument must be str, not {type(text).__name__}")
        lines = self._partial.text + text
        self._partial.text = ""
        if lines.endswith("\n") or len(lines) > _PARTIAL_LIMIT:
            self._emit(lines)
        else:
            complete, end, self._partial.text = lines.rpartition("\n")
            self._emit(complete + end)
        return len(text)

    def writelines(self, lines: Iterable[str], /) -> None:  # type: ignore[override]
        """Write the lines as one event."""
        self.write("".join(lines))

    def flush(self) -> None:
        text, self._partial.text = self._partial.text, ""
        self._emit(text)

    def rebind(self, log: Log) -> None:
        """Write to this log from now on, in a child that inherited the stream."""
        self.log = log
        self._partial = _Partial()

    def _emit(self, lines: str) -> None:
        message = lines.rstrip("\r\n")
        if message:
            self.log.write(self._level, self._event, message, {})


class _Bytes(io.BufferedIOBase):
    """The ``buffer`` of a stream; a character that is cut between two writes is shown as its bytes."""

    def __init__(self, stream: LogStream) -> None:
        super().__init__()
        self._stream = stream

    def writable(self) -> bool:
        return True

    def write(self, data: bytes | bytearray | memoryview, /) -> int:  # type: ignore[override]
        text = bytes(data)
        self._stream.write(text.decode("utf-8", "backslashreplace"))
        return len(text)

    def flush(self) -> None:
        self._stream.flush()


class ErrorStream(LogStream):
    """``wsgi.errors``. See PEP 3333, "Input and Error Streams"."""

    def __init__(self, log: Log) -> None:
        super().__init__(log, "error", "wsgi-errors")
