"""Data sets of a model hub as data files, from a hub on this machine: Parquet and JSON alone, by their commit."""

import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from pyarrow import parquet

from tests.loopback import Fault, Loopback, Request, Response, status
from trainer.backends.data_sources import local_file
from trainer.data.fetch.limits import VARIABLE
from trainer.data.read.origins import origin_beside
from trainer.data.read.rows import read_conversations
from trainer.errors import ConfigError, DataError
from trainer.runs.files import sha256_of

COMMIT, LATER = "1" * 40, "2" * 40


def chat(question: str) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": "Yes."}]}


def lines(*rows: dict[str, Any]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


class Hub:
    """One data set at one commit."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {"README.md": b"# Rows", "data/train-0.jsonl": lines(chat("One?"), chat("Two?"))}
        self.card: dict[str, Any] | None = None
        self.commit = COMMIT

    def __call__(self, request: Request) -> Response:
        parts = request.path.strip("/").split("/")
        if parts[:4] == ["api", "datasets", "org", "rows"] and parts[4:5] in ([], ["revision"]):
            if parts[5:] not in ([], ["main"], ["v1"], [self.commit]):
                return Response(404, {"error": "no"}, {"X-Error-Code": "RevisionNotFound"})
            siblings = [{"rfilename": name, "size": len(content)} for name, content in self.files.items()]
            about = {"id": "org/rows", "sha": self.commit, "siblings": siblings, "tags": [], "private": False,
                     "downloads": 0, "likes": 0}  # fmt: skip
            return Response(200, about | ({"cardData": self.card} if self.card else {}))
        name = "/".join(parts[5:])
        if parts[:4] == ["datasets", "org", "rows", "resolve"] and name in self.files:
            content = self.files[name]
            headers = {"X-Repo-Commit": self.commit, "ETag": f'"{name}-{self.commit[:4]}"', "Accept-Ranges": "bytes"}
            if request.method == "HEAD":
                headers["Content-Length"] = str(len(content))
            return Response(200, content, headers)
        return Response(404, {"error": "no"}, {"X-Error-Code": "RepoNotFound"})


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TRAINER_CACHE", str(tmp_path / "cache"))
    made = Hub()
    with Loopback(made) as server:
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", server.url)
        monkeypatch.setattr(
            "huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE",
            server.url + "/{repo_id}/resolve/{revision}/{filename}",
        )
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
        made.server = server  # type: ignore[attr-defined]
        yield made


def fetched(address: str = "hf://org/rows", said: list[str] | None = None) -> Path:
    return local_file(Path(address), [].append if said is None else said.append).path


def questions(path: Path) -> list[str | None]:
    report = read_conversations(path)
    assert not report.errors
    return [row.messages[-2].content for row in report.conversations]


def refused(address: str = "hf://org/rows") -> str:
    with pytest.raises((DataError, ConfigError)) as raised:
        fetched(address)
    return str(raised.value)


def test_chat_rows_are_kept_as_they_are_with_the_commit(hub: Hub) -> None:
    hub.files["data/train-1.jsonl"] = lines(chat("Three?")).rstrip()
    hub.files["data/test-0.jsonl"] = lines(chat("Held out?"))
    found = fetched()
    assert found.read_bytes() == hub.files["data/train-0.jsonl"] + hub.files["data/train-1.jsonl"] + b"\n"
    assert found.name == "rows.train.jsonl"
    record = origin_beside(found, sha256_of(found))
    assert record is not None
    assert (record.address, record.revision) == ("hf://org/rows", COMMIT)
    assert questions(fetched("hf://org/rows?split=test")) == ["Held out?"]


def test_it_is_fetched_again_only_where_the_commit_is_another_one(hub: Hub) -> None:
    said: list[str] = []
    first = fetched(said=said)
    assert fetched(said=said) == first
    assert len(said) == 1
    hub.commit, hub.files["data/train-0.jsonl"] = LATER, lines(chat("New?"))
    assert questions(fetched(said=said)) == ["New?"]


def test_parquet_becomes_chat_rows_and_what_is_not_carried_is_told(hub: Hub, tmp_path: Path) -> None:
    table = pyarrow.table({"ask": ["One?", "Two?"], "reply": ["1", "2"], "id": [1, 2]})
    parquet.write_table(table, tmp_path / "rows.parquet")
    hub.files = {"train.parquet": (tmp_path / "rows.parquet").read_bytes()}
    said: list[str] = []
    assert questions(fetched("hf://org/rows?prompt=ask&answer=reply", said)) == ["One?", "Two?"]
    assert said[0].endswith("not carried, as a chat row has no place for it: id (2 rows)")
    assert "expected one question" in refused()


def test_preference_rows_keep_both_answers_where_they_are_wanted(hub: Hub) -> None:
    hub.files = {"train.jsonl": lines({"prompt": "One?", "chosen": "1", "rejected": "7"})}
    (row,) = map(json.loads, fetched("hf://org/rows?to=dpo").read_text().splitlines())
    assert row["non_preferred_output"] == [{"role": "assistant", "content": "7"}]
    assert questions(fetched()) == ["One?"]
    assert "says to=x, expected to=sft, or to=dpo" in refused("hf://org/rows?to=x")


def test_a_data_set_that_is_too_large_is_refused_before_a_file_of_it_arrives(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.files["data/train-1.jsonl"] = lines(chat("Three?"))
    size = sum(len(content) for name, content in hub.files.items() if name.startswith("data/"))
    monkeypatch.setenv(VARIABLE, str(size - 1))
    assert refused().startswith(f"hf://org/rows: holds {size:,} bytes, expected at most {size - 1:,} bytes; divide it")
    assert not list((tmp_path / "hub").rglob("*.jsonl"))
    monkeypatch.setenv(VARIABLE, str(size))
    assert questions(fetched()) == ["One?", "Two?", "Three?"]


def test_a_compressed_file_of_json_is_unpacked(hub: Hub) -> None:
    hub.files = {"train.jsonl.gz": gzip.compress(lines(chat("One?")))}
    assert questions(fetched()) == ["One?"]


def test_a_file_and_a_revision_can_be_named(hub: Hub) -> None:
    hub.files["extra/more.jsonl"] = lines(chat("More?"))
    assert questions(fetched("hf://org/rows@v1/extra/more.jsonl")) == ["More?"]
    assert "has no such file" in refused("hf://org/rows/extra/none.jsonl")
    assert "is no file of rows, expected one of .parquet, .jsonl" in refused("hf://org/rows/README.md")
    assert "has no such revision, expected a branch, tag or commit" in refused("hf://org/rows@v9")


def test_configs_and_splits_are_those_of_the_card(hub: Hub) -> None:
    hub.files = {"en/a.jsonl": lines(chat("English?")), "de/a.jsonl": lines(chat("Deutsch?")),
                 "de/b.jsonl": lines(chat("Noch eins?"))}  # fmt: skip
    hub.card = {"configs": [
        {"config_name": "en", "data_files": "en/*.jsonl"},
        {"config_name": "de", "data_files": [{"split": "train", "path": "de/a.jsonl"},
                                             {"split": "test", "path": ["de/b.jsonl"]}]},
    ]}  # fmt: skip
    assert questions(fetched("hf://org/rows?config=en")) == ["English?"]
    assert questions(fetched("hf://org/rows?config=de&split=test")) == ["Noch eins?"]
    assert "has several configs, expected 'en' or 'de'; add config=NAME" in refused()
    assert "has no config of that name, expected 'en' or 'de'" in refused("hf://org/rows?config=fr")
    assert "has no split 'test', expected 'train'; add split=NAME" in refused("hf://org/rows?config=en&split=test")


def test_a_data_set_that_a_script_makes_is_refused(hub: Hub) -> None:
    hub.files = {"rows.py": b"raise SystemExit('executed')", "rows.csv": b"a,b"}
    assert "has no files of rows, expected .parquet, .jsonl, .json or .ndjson" in refused()


def test_refusals_of_the_hub_are_told(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "the hub has no such data set, or HF_TOKEN may not read it" in refused("hf://org/none")
    server: Loopback = hub.server  # type: ignore[attr-defined]
    server.faults = [Fault("gated", answer=status(403, X_Error_Code="GatedRepo"), times=9)]
    assert "is gated, expected an account that may read it; accept its terms" in refused()
    server.faults = []
    monkeypatch.setenv(VARIABLE, "10")
    assert "expected at most 10 bytes" in refused()
    assert [file.suffix for file in (tmp_path / "cache" / "sources").iterdir() if file.suffix != ".lock"] == []


@pytest.mark.parametrize(
    "address", ["hf://org", "hf://org/rows?splits=test", "hf://org/rows?split=", "hf://org/rows?prompt=ask"]
)
def test_an_address_that_says_something_else_is_refused(address: str, hub: Hub) -> None:
    assert refused(address).startswith(f"{address}: names ")
