"""Reading of documents: read it top to bottom."""

from collections.abc import Iterable
from pathlib import Path

from trainer.data.quoting import printable
from trainer.errors import Attempts, ConfigError
from trainer.workshop.documents.chunk import Chunk
from trainer.workshop.documents.cutting import Say, cut_document
from trainer.workshop.documents.files import find_files
from trainer.workshop.documents.formats import read_document

CHUNK_CHARACTERS = 4_000
LEAST_CHARACTERS, MOST_CHARACTERS = 200, 200_000


def read_documents(
    paths: Iterable[str | Path],
    *,
    chunk_characters: int = CHUNK_CHARACTERS,
    on_problem: Say | None = None,
    on_note: Say | None = None,
) -> list[Chunk]:
    """The chunks of files, folders and globs, in the order of `paths`; each text once. The same files give the same.

    A file that cannot be read goes to `on_problem` as a sentence and is left out. `on_note` hears of what else is
    left out or longer than `chunk_characters`.

    Raises: ConfigError, DataError or MissingDependency with every problem, where there is no `on_problem`.
    """
    if not LEAST_CHARACTERS <= chunk_characters <= MOST_CHARACTERS:
        raise ConfigError(
            f"the size of a chunk is {chunk_characters} characters, expected {LEAST_CHARACTERS} to "
            f"{MOST_CHARACTERS:,}; {CHUNK_CHARACTERS:,} suits most documents"
        )
    note = on_note or (lambda _: None)
    attempts = Attempts()
    chunks: dict[str, Chunk] = {}
    for file in find_files(paths, attempts, note):
        document = attempts.make(read_document, file.path, file.source, note)
        if document is None:
            continue
        cut = cut_document(file.source, document, chunk_characters, note)
        new = {chunk.id: chunk for chunk in reversed(cut) if chunk.id not in chunks}
        if repeated := len(cut) - len(new):
            note(f"{printable(file.source)}: {repeated} of {len(cut)} chunks repeat earlier ones, and are left out")
        chunks |= dict(reversed(new.items()))
    if on_problem is None:
        attempts.end()
    for error in attempts.errors:
        for problem in error.problems:
            assert on_problem is not None
            on_problem(problem)
    return list(chunks.values())
