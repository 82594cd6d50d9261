"""Patterns and compressed files as files on this machine: fetched once, whole, and known by their content."""

import fcntl
import gzip
import json
import os
import random
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import zstandard

from trainer.config.schema import DataConfig
from trainer.data.fetch import limits, store
from trainer.data.fetch.addresses import Locator, is_address, spelled
from trainer.data.read.checks import check_files
from trainer.data.read.sources import data_files
from trainer.errors import ConfigError, DataError
from trainer.runs.files import sha256_of

ROWS = [
    {"messages": [{"role": "user", "content": f"Question {n}?"}, {"role": "assistant", "content": f"Answer {n}."}]}
    for n in range(12)
]
TEXT = "".join(json.dumps(row) + "\n" for row in ROWS).encode()
PACKED = {".gz": gzip.compress, ".zst": zstandard.compress}


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def locator(tmp_path, monkeypatch, said):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TRAINER_CACHE", str(tmp_path / "cache"))
    return Locator(said.append, lambda address: pytest.fail("no workspace is asked"))


def test_a_pattern_is_its_files_by_name_each_with_the_weight(locator):
    for name in ("b.jsonl", "a.jsonl", "c.txt"):
        Path(name).write_bytes(TEXT)
    data = DataConfig.model_validate({"train": [{"path": "*.jsonl", "weight": 2}, "c.txt"], "validation": "[ab].jsonl"})
    found = locator.config(data)
    assert [(source.path, source.weight) for source in found.train_sources] == [
        ("a.jsonl", 2), ("b.jsonl", 2), ("c.txt", 1)]  # fmt: skip
    assert found.validation_paths == ("a.jsonl", "b.jsonl")


def test_a_config_of_plain_paths_stays_as_it_is(locator):
    data = DataConfig.model_validate({"train": "is/not/there.jsonl", "validation": ["neither"]})
    assert locator.config(data) is data


def test_a_file_whose_name_is_a_pattern_is_that_file(locator):
    for name in ("a[1].jsonl", "a1.jsonl"):
        Path(name).write_bytes(TEXT)
    assert locator.paths("a[1].jsonl") == ["a[1].jsonl"]


def test_every_file_that_cannot_be_had_is_told_at_once(locator, tmp_path):
    data = DataConfig.model_validate({"train": ["*.jsonl", "s3://bucket/x?sig=SECRET"], "validation": "http://host/x"})
    with pytest.raises(ConfigError) as raised:
        locator.config(data)
    accepted = "expected a path, a pattern, https://, az://, hf:// or azureml:NAME:VERSION"
    below = f"(looked for below {tmp_path})"
    assert sorted(raised.value.problems) == [
        f"*.jsonl: no file matches the pattern, expected one at least; check the pattern {below}",
        f"http://host/x: is not read from http://, {accepted}; write https://",
        f"s3://bucket/x: is not read from s3://, {accepted}; copy the file to one of them",
    ]
    assert "SECRET" not in str(raised.value)


@pytest.mark.parametrize("suffix", PACKED)
def test_a_compressed_file_is_read_from_a_copy_that_is_unpacked_once(suffix, locator, said):
    path = Path(f"rows.jsonl{suffix}")
    path.write_bytes(PACKED[suffix](TEXT))
    (first,) = locator.files([path])
    assert first.path.read_bytes() == TEXT
    assert first.beside == Path("rows.jsonl")
    assert sorted(file.name for file in first.path.parent.iterdir()) == ["rows.jsonl", "rows.jsonl.origin.json"]
    assert locator.files([path]) == [first]
    assert len(said) == 1
    path.write_bytes(PACKED[suffix](TEXT + TEXT))
    (second,) = locator.files([path])
    assert second.path.read_bytes() == TEXT + TEXT
    assert first.path.read_bytes() == TEXT
    assert len(said) == 2


def test_the_origin_stands_in_the_manifest(locator):
    path = Path("rows.jsonl.gz")
    path.write_bytes(gzip.compress(TEXT))
    data = locator.config(DataConfig.model_validate({"train": str(path)}))
    (file,) = data_files(data, check_files([Path(data.train_sources[0].path)]))
    assert file.rows == len(ROWS)
    assert file.origin is not None
    digest = sha256_of(path)
    assert (file.origin.address, file.origin.revision) == ("rows.jsonl.gz", digest)
    assert (file.origin.sha256, file.origin.num_bytes) == (digest, path.stat().st_size)


def test_a_copy_that_has_changed_has_no_origin_and_is_made_anew(locator):
    path = Path("rows.jsonl.gz")
    path.write_bytes(gzip.compress(TEXT))
    (found,) = locator.files([path])
    found.path.write_bytes(b"other")
    assert store.kept(str(path)) is None
    assert locator.files([path])[0].path.read_bytes() == TEXT


DAMAGED = {
    "cut off": (gzip.compress(TEXT)[:-20], ".gz"),
    "other bytes inside": (gzip.compress(TEXT)[:30] + b"\0" * 20 + gzip.compress(TEXT)[50:], ".gz"),
    "Zstandard with other bytes inside": (zstandard.compress(TEXT)[:9] + b"\xff" * 30, ".zst"),
    "Zstandard cut off": (zstandard.compress(TEXT)[:-20], ".zst"),
    "Zstandard cut off behind blocks": (zstandard.compress(random.Random(0).randbytes(500_000))[:300_000], ".zst"),
    "Zstandard cut off in its second frame": (zstandard.compress(TEXT) + zstandard.compress(TEXT)[:6], ".zst"),
}


@pytest.mark.parametrize(("content", "suffix"), DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_file_leaves_nothing(content, suffix, locator, tmp_path):
    Path(f"rows.jsonl{suffix}").write_bytes(content)
    with pytest.raises(DataError, match=r"^rows\.jsonl\.\w+: cannot be unpacked \(.*\), expected a whole file"):
        locator.files([Path(f"rows.jsonl{suffix}")])
    assert [file.suffix for file in (tmp_path / "cache" / "sources").iterdir()] == [".lock"]


def test_zstandard_files_of_several_frames_are_read_to_the_end(locator):
    skippable = b"\x50\x2a\x4d\x18\x04\x00\x00\x00abcd"  # RFC 8878, 3.1.2
    Path("rows.jsonl.zst").write_bytes(zstandard.compress(TEXT) + skippable + zstandard.compress(TEXT * 900))
    (found,) = locator.files([Path("rows.jsonl.zst")])
    assert found.path.read_bytes() == TEXT * 901


def test_a_small_file_that_unpacks_to_too_much_is_refused(locator, tmp_path, monkeypatch):
    monkeypatch.setenv(limits.VARIABLE, "10000")
    Path("rows.jsonl.gz").write_bytes(gzip.compress(b" " * 10**7))
    with pytest.raises(
        DataError, match=r"rows.jsonl.gz: holds more, expected at most 10,000 bytes; divide it, or raise"
    ):
        locator.files([Path("rows.jsonl.gz")])
    assert [file.suffix for file in (tmp_path / "cache" / "sources").iterdir()] == [".lock"]


@pytest.mark.parametrize("text", ["0", "1e9", "-5", "many"])
def test_a_limit_that_is_no_number_is_refused(text, locator, monkeypatch):
    monkeypatch.setenv(limits.VARIABLE, text)
    Path("rows.jsonl.gz").write_bytes(gzip.compress(TEXT))
    with pytest.raises(ConfigError, match=limits.VARIABLE):
        locator.files([Path("rows.jsonl.gz")])


def test_a_cache_that_cannot_be_written_is_told(locator, tmp_path):
    (tmp_path / "cache").write_text("a file")
    Path("rows.jsonl.gz").write_bytes(gzip.compress(TEXT))
    with pytest.raises(DataError, match=r"cannot be kept in .*cache/sources .*; make room, or name another folder"):
        locator.files([Path("rows.jsonl.gz")])


def test_a_file_of_a_run_that_is_gone_is_fetched_again_and_must_be_the_same(locator):
    path = Path("rows.jsonl.gz")
    path.write_bytes(gzip.compress(TEXT))
    data = locator.config(DataConfig.model_validate({"train": str(path)}))
    files = data_files(data, check_files([Path(data.train_sources[0].path)]))
    Path(files[0].path).unlink()
    locator.again(files)
    assert Path(files[0].path).read_bytes() == TEXT
    Path(files[0].path).unlink()
    path.write_bytes(gzip.compress(TEXT + TEXT))
    with pytest.raises(
        DataError, match=r"^rows.jsonl.gz: has changed since the run read it \(sha256 .*, the run's was "
    ):
        locator.again(files)


def test_of_many_who_want_an_address_at_once_one_fetches_it(locator):
    asked = []

    def download(revision, target):
        asked.append(revision)
        if revision is not None:
            return None
        time.sleep(0.2)  # the others come meanwhile
        target.write(TEXT)
        return store.Fetched("rows.jsonl", "one")

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: store.fetch("https://host/rows.jsonl", download), range(4)))
    assert sorted(asked, key=str) == [None, "one", "one", "one"]
    assert len({file.path for file, _ in found}) == 1
    assert sorted(is_new for _, is_new in found) == [False, False, False, True]


def test_another_process_of_a_run_takes_the_copy_without_asking(locator, monkeypatch):
    path = Path("rows.jsonl.gz")
    path.write_bytes(gzip.compress(TEXT))
    (found,) = locator.files([path])
    path.unlink()
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert Locator(pytest.fail, pytest.fail).files([path]) == [found]


@pytest.mark.parametrize(
    ("typed", "meant", "is_one"),
    [("https://host/a/b", "https://host/a/b", True), ("hf://org/name?split=test", "hf://org/name?split=test", True),
     ("azureml:name:1", "azureml:name:1", True), ("data/rows.jsonl", "data/rows.jsonl", False),
     ("/data/rows.jsonl", "/data/rows.jsonl", False), ("C:/rows.jsonl", "C:/rows.jsonl", False)],
)  # fmt: skip
def test_an_address_on_the_command_line_is_the_one_that_was_typed(typed, meant, is_one):
    assert spelled(Path(typed)) == meant
    assert is_address(meant) is is_one


@pytest.mark.parametrize("address", ["https://", "https://[::1/x", "https://me:SECRET@host:port/x?sig=SECRET"])
def test_an_address_without_a_server_is_told_and_no_secret_of_it(address, locator):
    with pytest.raises(ConfigError, match="names no server, expected https://HOST/PATH; correct it") as raised:
        locator.paths(address)
    assert "SECRET" not in str(raised.value)


@pytest.mark.parametrize("address", ["https://host/rows.jsonl?sig=SECRET", "az://c@a/rows.jsonl", "azureml:rows:1"])
def test_a_part_that_fetches_nothing_refuses_an_address(address):
    with pytest.raises(DataError) as raised:
        check_files([Path(address)])
    assert "is an address, expected a file on this machine; fetch it with train or trainer data" in str(raised.value)
    assert "SECRET" not in str(raised.value)


def test_what_a_killed_process_left_goes_and_what_another_one_writes_stays(locator):
    Path("rows.jsonl.gz").write_bytes(gzip.compress(TEXT))
    folder = store.store_folder()
    folder.mkdir(parents=True)
    left, held, new = (folder / f".part-{name}" for name in ("left", "held", "new"))
    for path in (left, held, new):
        path.write_bytes(TEXT)
    for path in (left, held):
        os.utime(path, (0, 0))
    with held.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        locator.paths("rows.jsonl.gz")
    assert sorted(path.name for path in folder.glob(".part-*")) == [".part-held", ".part-new"]
