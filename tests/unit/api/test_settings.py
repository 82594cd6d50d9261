"""The server's YAML: every mistake with its line, and the settings without a YAML."""

import re
from pathlib import Path

import pytest

from trainer.api.chat import _model_of
from trainer.api.keys import Caller, digest_of
from trainer.api.settings import BaseOffer, KeyOffer, ServerFile, Webhook, load_api
from trainer.config.load import load_settings
from trainer.errors import ConfigError

ROOT = Path(__file__).parents[3]
LEAST = "bases: {a: {base: c}}\n"
SAMPLE = ROOT / "configs" / "server.yaml"
DIGEST = "ab" * 32


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TRAINER_API_KEY", "TRAINER_RUNS"):
        monkeypatch.delenv(name, raising=False)


def written(folder: Path, text: str) -> Path:
    path = folder / "server.yaml"
    path.write_text(text)
    return path


@pytest.mark.parametrize("is_whole", [False, True], ids=["as it is", "with what stands in comments"])
def test_the_sample_loads(is_whole: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    text = SAMPLE.read_text(encoding="utf-8")
    if is_whole:
        text = re.sub(r"^# (keys:|webhooks:|  )", r"\1", text, flags=re.MULTILINE)
    settings = load_api(written(tmp_path, text), None).settings

    assert list(settings.bases) == ["builtin:tiny", "llama-3.1-8b", "llama-3.1-8b-azure"]
    assert (settings.root, settings.cap) == (Path("runs"), 50.0)
    assert [key.caller.name for key in settings.keys] == (["ann"] if is_whole else ["default"])
    assert len(settings.webhooks) == is_whole


def test_without_a_yaml_there_is_the_tiny_base_and_one_key(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = load_api(None, None, ["llama=meta-llama/Llama-3.1-8B", "Qwen/Qwen3-8B"])
    assert {name: offer.base for name, offer in loaded.settings.bases.items()} == {
        "builtin:tiny": "builtin:tiny",
        "llama": "meta-llama/Llama-3.1-8B",
        "Qwen/Qwen3-8B": "Qwen/Qwen3-8B",
    }
    assert loaded.new_key is not None
    [key] = loaded.settings.keys
    assert (key.caller, key.digest) == (Caller("default"), digest_of(loaded.new_key))
    assert loaded.new_key not in repr(loaded.settings)

    monkeypatch.setenv("TRAINER_API_KEY", "a-key-of-mine")
    monkeypatch.setenv("TRAINER_RUNS", "elsewhere")
    again = load_api(None, None)
    assert (again.new_key, again.settings.root) == (None, Path("elsewhere"))
    assert [key.digest for key in again.settings.keys] == [digest_of("a-key-of-mine")]
    assert load_api(None, Path("given")).settings.root == Path("given")


def test_two_roots_are_one_too_many(tmp_path: Path) -> None:
    path = written(tmp_path, f"root: here\n{LEAST}")
    assert load_api(path, Path("here").absolute()).settings.root == Path("here").absolute()
    with pytest.raises(ConfigError, match=r"--root: 'there' is not the root of .*, expected 'here'; leave one out"):
        load_api(path, Path("there"))


def test_all_mistakes_are_told_with_their_lines(tmp_path: Path) -> None:
    path = written(tmp_path, f"""
bases:
  llama:
    base: meta-llama/Llama-3.1-8B
    backend: openai
    override: [lora.r=8]
cap: -1
keys:
  - name: a b
    sha256: secret
  - sha256: {DIGEST}
    max_job: 3
webhooks:
  - url: example.com
""")  # fmt: skip
    with pytest.raises(ConfigError) as refused:
        load_api(path, None)
    assert refused.value.problems == (
        f"{path}:5: bases.llama.backend: is 'openai', expected 'local' or 'azureml'",
        f"{path}:6: bases.llama.override: unknown field, did you mean overrides?",
        f"{path}:9: keys.0.name: is 'a b', expected a name of up to 40 letters, digits, - and _",
        f"{path}:10: keys.0.sha256: is 'secret', expected the 64 hexadecimal digits of: trainer api --new-key NAME",
        f"{path}:11: keys.1.name: missing; add it",
        f"{path}:12: keys.1.max_job: unknown field, did you mean max_jobs?",
        f"{path}:7: cap: is -1, expected a number above 0",
        f"{path}:14: webhooks.0.url: is 'example.com', expected an address that begins with https://",
    )


@pytest.mark.parametrize(("text", "said"), [
    ("", "bases: missing; add it"),
    ("- 1", "holds a list, expected sections such as root:"),
    ("bases: {}", "bases: is {}, expected something that is not empty"),
    ("bases: {a/../b: {base: c}, 'a b': {base: c}}", "bases.a b: "),
    (f"{LEAST}keys: [{{name: x, sha256: {DIGEST}}}, {{name: y, sha256: {DIGEST}}}]", f"sha256 {DIGEST} stands twice"),
    (LEAST * 2, "bases"),
])  # fmt: skip
def test_a_server_file_that_is_none_is_refused(text: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as refused:
        load_api(written(tmp_path, text), None)
    assert said in str(refused.value)


def test_what_jobs_would_begin_with_is_checked_before_there_are_any(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        """
bases:
  a: {base: builtin:tiny, overrides: [lora.rank=4, training.n_epochs=0]}
  b: {base: builtin:tiny, config: absent.yaml}
  c: {base: builtin:tiny, overrides: [lora.r=4]}
""",
    )
    with pytest.raises(ConfigError) as refused:
        load_api(path, None)
    assert [problem.partition(", ")[0] for problem in refused.value.problems] == [
        f"{path}: bases.a: override 'lora.rank=4': lora.rank: unknown field",
        f"{path}: bases.a: override 'training.n_epochs=0': training.n_epochs: is 0",
        f"{path}: bases.b: absent.yaml: no such file",
    ]


@pytest.mark.parametrize("base", ["123", "./a: b", "null"])
def test_a_base_is_the_same_for_jobs_and_chat_whatever_its_name_is_in_yaml(base: str) -> None:
    assert _model_of(BaseOffer(base=base)).base == base


@pytest.mark.parametrize("given", ["", "=x", "a=", "a b=c", "/x"])
def test_a_base_that_is_none_is_refused(given: str) -> None:
    with pytest.raises(ConfigError, match=r"--base: .* is no base, expected a hub id or NAME=BASE"):
        load_api(None, None, [given])


def test_every_setting_stands_in_the_documentation() -> None:
    page = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    for prefix, section in (
        ("", ServerFile),
        ("bases.NAME.", BaseOffer),
        ("keys[].", KeyOffer),
        ("webhooks[].", Webhook),
    ):
        for name, field in section.model_fields.items():
            assert f"| `{prefix}{name}` | {field.description} |" in page


def test_a_wrong_file_is_no_server_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"tiny.yaml:.*model: unknown field, expected root, bases"):
        load_settings(ROOT / "configs" / "tiny.yaml", ServerFile, "")


def test_whoever_has_no_server_file_is_not_sent_to_a_training_config(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load_api(tmp_path / "none", None)
    words = "docs/api.md lists its settings, or leave out --config"
    assert str(caught.value) == f"{tmp_path / 'none'}: no such file, expected a yaml config; {words}"
