"""Multipart forms whose one file goes on as it arrives: memory holds a piece of it, whatever its size."""

import logging
from collections.abc import AsyncIterator, Callable, Sequence
from typing import TYPE_CHECKING

import anyio.to_thread
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from trainer.api.errors import ApiError

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

PIECE_BYTES = 2**20  # handed to a thread at a time
MAX_FIELD_BYTES = 4096
MAX_NAME_CHARACTERS = 255
logging.getLogger("python_multipart").addHandler(logging.NullHandler())  # it warns of each body that is no form


class StreamedForm:
    """Text fields in `fields`; the bytes of the file's field go to `write`. Raises: ApiError, where it is no form."""

    def __init__(self, content_type: str, file: str, fields: Sequence[str], write: Callable[[bytes], None]) -> None:
        kind, options = parse_options_header(content_type)
        boundary = options.get(b"boundary")
        if kind != b"multipart/form-data" or not boundary:
            raise ApiError(400, f"body: is {content_type[:80]!r}, expected multipart/form-data with its boundary")
        self.file, self.known, self.write = file, fields, write
        self.fields, self.filename = dict[str, str](), ""
        self.has_file, self.has_ended, self._name = False, False, ""
        self._header, self._value, self._disposition, self._text = b"", b"", b"", bytearray()
        try:
            self._parser = MultipartParser(boundary, self._callbacks())
        except FormParserError as error:
            raise ApiError(400, f"body: is no multipart form: {error}") from None

    def _callbacks(self) -> "MultipartCallbacks":
        return {
            "on_part_begin": self._begin,
            "on_header_field": self._header_field,
            "on_header_value": self._header_value,
            "on_header_end": self._header_end,
            "on_headers_finished": self._headers_end,
            "on_part_data": self._data,
            "on_part_end": self._part_end,
            "on_end": self._end,
        }

    def feed(self, data: bytes) -> None:
        """Take the next bytes of the body."""
        try:
            self._parser.write(data)
        except FormParserError as error:
            raise ApiError(400, f"body: is no multipart form: {error}") from None

    def finish(self) -> None:
        """End the body. Raises: ApiError, where something of it is missing."""
        if not self.has_ended:
            raise ApiError(400, "body: ends before the form does, expected its closing boundary")
        if not self.has_file:
            raise ApiError(400, f"{self.file}: is missing; add it as a file", "missing_required_parameter", self.file)

    def _begin(self) -> None:
        self._name, self._disposition, self._text = "", b"", bytearray()

    def _header_field(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _header_end(self) -> None:
        if self._header.lower() == b"content-disposition":
            self._disposition = self._value
        self._header, self._value = b"", b""

    def _headers_end(self) -> None:
        _, options = parse_options_header(self._disposition)
        self._name = options.get(b"name", b"").decode("utf-8", "replace")
        is_file = self._name == self.file
        if not is_file and self._name not in self.known:
            accepted = ", ".join([self.file, *self.known])
            raise ApiError(400, f"{self._name[:80]!r}: unknown field, expected {accepted}", "unknown_parameter")
        if (is_file and self.has_file) or self._name in self.fields:
            raise ApiError(400, f"{self._name}: stands twice, expected once", "invalid_value", self._name)
        if is_file:
            self.has_file, self.filename = True, plain_name(options.get(b"filename", b"").decode("utf-8", "replace"))

    def _data(self, data: bytes, start: int, end: int) -> None:
        if self._name == self.file:
            self.write(data[start:end])
            return
        self._text += data[start:end]
        if len(self._text) > MAX_FIELD_BYTES:
            raise ApiError(400, f"{self._name}: is longer than {MAX_FIELD_BYTES:,} bytes", "invalid_value", self._name)

    def _part_end(self) -> None:
        if self._name != self.file:
            self.fields[self._name] = self._text.decode("utf-8", "replace")

    def _end(self) -> None:
        self.has_ended = True


async def pour(stream: AsyncIterator[bytes], form: StreamedForm) -> None:
    """Feed a body to a form, in a thread, a piece at a time. Raises: ApiError; ClientDisconnect."""
    piece = bytearray()
    async for chunk in stream:
        piece += chunk
        if len(piece) >= PIECE_BYTES:
            await anyio.to_thread.run_sync(form.feed, bytes(piece))
            piece.clear()
    await anyio.to_thread.run_sync(form.feed, bytes(piece))
    form.finish()


def plain_name(given: str) -> str:
    """The last part of a file's name as its sender calls it, printable: it is shown, and never a path of ours."""
    last = given.replace("\\", "/").rpartition("/")[2]
    shown = "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in last)
    return shown.strip()[:MAX_NAME_CHARACTERS] or "upload"
