"""What a killed server leaves is removed by the next one; what a living one writes is not."""

import os
import threading
from pathlib import Path

from trainer.api.folders import CONTENT, ONCE_SECONDS, Incoming, home_of, locked, sweep


def test_only_what_nobody_writes_any_more_is_swept(tmp_path: Path) -> None:
    home = home_of(tmp_path, "ann")
    living, killed, named = Incoming(home), Incoming(home), Incoming(home)
    for each in (living, killed, named):
        each.write(b"x" * 100)
    named.become(home / "files" / "file-0", "content.jsonl", "{}")
    for each in (killed, named):
        assert each.handle is not None
        os.close(each.handle)  # as the kernel does at the end of a process
    once = home / "once"
    once.mkdir()
    for name in ("old.json", "new.json"):
        (once / name).write_text("{}")
    os.utime(once / "old.json", (0, (once / "new.json").stat().st_mtime - ONCE_SECONDS - 60))

    sweep(tmp_path)

    assert {path.name for path in (home / "incoming").iterdir()} == {
        living.folder.name,
        f"{living.folder.name}.lock",
    }
    assert [path.name for path in once.iterdir()] == ["new.json"]
    living.become(home / "files" / "file-1", "content.jsonl", "{}")
    living.close()
    for name in ("file-0", "file-1"):
        assert (home / "files" / name / "content.jsonl").read_bytes() == b"x" * 100
    assert list((home / "incoming").iterdir()) == []


def test_a_file_gets_its_place_while_nobody_counts_its_owners_bytes(tmp_path: Path) -> None:
    home = home_of(tmp_path, "ann")
    incoming, folder = Incoming(home), home / "files" / "file-0"
    incoming.write(b"x" * 100)
    thread = threading.Thread(target=incoming.become, args=(folder, f"{CONTENT}.jsonl", "{}"))
    with locked(home):
        thread.start()
        thread.join(0.3)
        assert (thread.is_alive(), folder.exists()) == (True, False)
    thread.join(10)
    incoming.close()
    assert folder.exists()
