"""Archives of an adapter, whatever a server sends: the files of one, or one sentence."""

import io
import struct
import zipfile
from pathlib import Path

import pytest

from trainer.backends.openai.adapter_home import _unpack
from trainer.errors import BackendError

LINK, FOUND = 0o120777 << 16, b"PK\x01\x02"


def packed(*names: str, mode: int = 0o644 << 16, kind: int = zipfile.ZIP_STORED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name in names:
            entry = zipfile.ZipInfo(name)
            entry.external_attr, entry.compress_type = mode, kind
            archive.writestr(entry, "{}")
    return file.getvalue()


def told_longer(archive: bytes) -> bytes:
    """The same, whose only file is said to be of 2 GiB."""
    changed = bytearray(archive)
    struct.pack_into("<II", changed, archive.index(FOUND) + 20, 2**31 - 1, 2**31 - 1)
    return bytes(changed)


ARCHIVES = {
    "another folder": (packed("a/../../b.json"), "holds 'a/../../b.json', expected the files of an adapter"),
    "the root": (packed("/etc/b.json"), "holds '/etc/b.json'"),
    "windows": (packed("C:\\b.json"), "holds 'C:"),
    "a link": (packed("b.json", mode=LINK), "holds 'b.json'"),
    "a pickle": (packed("adapter_model.bin"), "holds 'adapter_model.bin'"),
    "packed small": (packed("b.json", kind=zipfile.ZIP_DEFLATED), "holds 'b.json'"),
    "a file in a file": (packed("b.json", "b.json/c.json"), "cannot be unpacked"),
    "no text": (packed("\u00e9.json").replace("\u00e9".encode(), b"\xff\xfe"), "cannot be unpacked"),
    "longer than it is": (told_longer(packed("b.json")), "cannot be unpacked"),
    "no archive": (b"{}", "cannot be unpacked"),
}


@pytest.mark.parametrize("what", ARCHIVES)
def test_an_archive_that_is_no_adapter_is_refused_in_one_sentence(what: str, tmp_path: Path) -> None:
    archive, words = ARCHIVES[what]
    file, folder = tmp_path / "adapter.zip", tmp_path / "below" / "adapter"
    file.write_bytes(archive)
    with pytest.raises(BackendError) as refused:
        _unpack(file, folder)
    assert str(refused.value).startswith(f"adapter.zip: {words}")
    assert [path.name for path in tmp_path.rglob("*.json") if folder not in path.parents] == []
