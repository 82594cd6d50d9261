"""Chunks of documents: what one request of `trainer data generate` is about, and what an answer can cite."""

import hashlib
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Chunk:
    """A part of a document that can be understood alone.

    `source` is the file as the user named it, `place` what a citation shows: "page 3", "row 17", "Installing > Linux".
    `title` holds the headings above the text. `function` is the JSON of a function schema, where the chunk describes
    an operation of an API, else empty.
    """

    source: str
    place: str
    text: str
    title: str = ""
    function: str = ""

    @property
    def id(self) -> str:
        """16 hex digits of the content: a chunk that moves in its file, or to another one, keeps them."""
        return hashlib.sha256(f"{self.title}\0{self.text}".encode()).hexdigest()[:16]

    @property
    def citation(self) -> str:
        """The source with the place in it."""
        return f"{self.source}, {self.place}" if self.place else self.source
