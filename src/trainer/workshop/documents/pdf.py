"""Reader of PDF: the text of each page."""

import io
import logging
from collections.abc import Callable, Sequence

from trainer.data.quoting import printable
from trainer.errors import DataError
from trainer.extras import need
from trainer.workshop.documents.passages import Document, Extent, Passage

_OCR = "run OCR first, for example: ocrmypdf in.pdf out.pdf"


def read_pdf(raw: bytes, source: str, note: Callable[[str], None]) -> Document:
    """The text of each page. `note` hears of pages without text.

    Raises: DataError, when it is locked, damaged, or holds no text at all; MissingDependency.
    """
    need("reading PDF", "pypdf", extra="documents")
    import pypdf
    from pypdf.errors import DependencyError

    logging.getLogger("pypdf").setLevel(logging.CRITICAL)  # it warns of what it recovers from
    try:
        reader = pypdf.PdfReader(io.BytesIO(raw))
        if reader.is_encrypted and not reader.decrypt(""):
            raise _locked(source)
        texts = [page.extract_text() or "" for page in reader.pages]
    except DataError:
        raise
    except DependencyError:
        raise _locked(source) from None
    except Exception as error:  # any kind, by what is damaged
        words = " ".join(str(error).split())[:100] or type(error).__name__
        raise DataError(f"{printable(source)}: cannot be read as PDF ({printable(words)}); export it again") from error
    return _passages(texts, source, note)


def _passages(texts: Sequence[str], source: str, note: Callable[[str], None]) -> Document:
    empty = [number for number, text in enumerate(texts, start=1) if not text.strip()]
    if len(empty) == len(texts):
        last = f" to {len(texts)}" if len(texts) > 1 else ""
        verb = "hold" if last else "holds"
        raise DataError(f"{printable(source)}: page{'s' * bool(last)} 1{last} {verb} no text, as scans do; {_OCR}")
    if empty:
        note(f"{printable(source)}: {len(empty)} of {len(texts)} pages hold no text ({_ranges(empty)}); {_OCR}")
    return [
        Passage(_clean(text), Extent("page", number, number))
        for number, text in enumerate(texts, start=1)
        if text.strip()
    ]


def _clean(text: str) -> str:
    """The text without the space at the ends of its lines."""
    return "\n".join(line.rstrip() for line in text.replace("\0", "").split("\n")).strip("\n")


def _ranges(numbers: Sequence[int]) -> str:
    """`1-3, 7`; at most ten of them."""
    found: list[list[int]] = []
    for number in numbers:
        if found and found[-1][1] == number - 1:
            found[-1][1] = number
        else:
            found.append([number, number])
    words = [str(first) if first == last else f"{first}-{last}" for first, last in found]
    return ", ".join(words[:10]) + (", …" if len(words) > 10 else "")


def _locked(source: str) -> DataError:
    return DataError(f"{printable(source)}: is encrypted, expected a PDF without a password; save it without one")
