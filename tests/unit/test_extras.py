"""What is missing can be installed with the command that says so, from wherever this package came."""

import json
from pathlib import Path

import pytest

from trainer.extras import install, missing

WHEEL = "azure_llm_trainer-0.1.0-py3-none-any.whl"
REPOSITORY = "https://example.com/acme/trainer.git"


@pytest.fixture
def installed_from(tmp_path, monkeypatch):
    """Puts an installation of this package in front of all others, as pip writes down where it is from (PEP 610)."""
    folder = tmp_path / "site" / "azure_llm_trainer-0.1.0.dist-info"
    folder.mkdir(parents=True)
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: azure-llm-trainer\nVersion: 0.1.0\n")
    monkeypatch.syspath_prepend(str(folder.parent))

    def write(source: object) -> None:
        (folder / "direct_url.json").write_text(source if isinstance(source, str) else json.dumps(source))

    return write


def test_from_an_index_by_its_name(installed_from):
    assert install("local") == "pip install 'azure-llm-trainer[local]'"


@pytest.mark.parametrize("damaged", ["", "{", "[]", "null"])
def test_a_damaged_record_ends_nothing(damaged, installed_from):
    installed_from(damaged)
    assert install("local") == "pip install 'azure-llm-trainer[local]'"


def test_from_a_wheel_by_its_file(installed_from, tmp_path):
    folder = tmp_path / "my wheels"
    folder.mkdir()
    (folder / WHEEL).touch()
    installed_from({"url": (folder / WHEEL).as_uri(), "archive_info": {}})
    assert install("openai") == f"pip install '{folder}/{WHEEL}[openai]'"


def test_from_a_wheel_that_is_gone_by_its_name(installed_from, tmp_path):
    installed_from({"url": (tmp_path / WHEEL).as_uri(), "archive_info": {}})
    assert install("local") == f"pip install '{WHEEL}[local]' in the folder that holds {WHEEL} now"


def test_from_a_checkout_as_it_was(installed_from, tmp_path, monkeypatch):
    url = tmp_path.as_uri()
    installed_from({"url": url, "dir_info": {"editable": True}})
    assert install("local") == f"pip install --editable '{tmp_path}[local]'"
    monkeypatch.chdir(tmp_path)
    assert install("local") == "pip install --editable '.[local]'"
    installed_from({"url": url, "dir_info": {}})
    assert install("local") == "pip install '.[local]'"


def test_from_a_repository_at_its_commit(installed_from):
    installed_from({"url": REPOSITORY, "vcs_info": {"vcs": "git", "commit_id": "abc123"}})
    assert install("azure") == f"pip install 'azure-llm-trainer[azure] @ git+{REPOSITORY}@abc123'"


def test_from_an_address(installed_from):
    installed_from({"url": f"https://example.com/{WHEEL}", "archive_info": {}})
    assert install("local") == f"pip install 'azure-llm-trainer[local] @ https://example.com/{WHEEL}'"


def test_the_sentence_names_the_command(installed_from, tmp_path):
    installed_from({"url": Path(tmp_path).as_uri(), "dir_info": {}})
    said = str(missing("serve", "starlette", extra="serve"))
    assert said == f"serve needs starlette, which is not installed; run: pip install '{tmp_path}[serve]'"
    assert str(missing("it", "nltk", extra=None)).endswith("run: pip install nltk")
