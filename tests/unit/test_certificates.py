"""A variable that names no certificates is told as what it is, before a service is asked."""

import os
import shutil
import ssl
from pathlib import Path

import pytest

from tests.commands import performed
from trainer.backends.choose import choose
from trainer.certificates import FILES, check_certificates, use_certificates
from trainer.errors import ConfigError
from trainer.runs import Run
from trainer.runs.ledger import Ledger, Thing


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch):
    for name in FILES:
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_is_not_there_is_told(monkeypatch, name):
    monkeypatch.setenv(name, "/nowhere/ca.pem")
    with pytest.raises(ConfigError, match=rf"^{name}: is '/nowhere/ca.pem', which cannot be read \(No such file"):
        choose("openai")


def test_a_file_without_certificates_is_told(monkeypatch, tmp_path):
    (tmp_path / "ca.pem").write_text("none")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    with pytest.raises(ConfigError, match="which holds no certificates"):
        check_certificates()


def test_every_variable_is_told_at_once(monkeypatch):
    for name in FILES:
        monkeypatch.setenv(name, "/nowhere")
    with pytest.raises(ConfigError) as caught:
        check_certificates()
    assert [problem.partition(":")[0] for problem in caught.value.problems] == [*FILES]


def test_what_is_in_order_passes(monkeypatch):
    if (bundle := ssl.get_default_verify_paths().cafile) is None:
        pytest.skip("this machine has no bundle of certificates")
    monkeypatch.setenv("SSL_CERT_FILE", bundle)
    check_certificates()


@pytest.mark.parametrize("name", FILES)
def test_what_one_variable_names_counts_for_every_client(monkeypatch, name):
    """httpx reads the first variable, requests the two others."""
    if (bundle := ssl.get_default_verify_paths().cafile) is None:
        pytest.skip("this machine has no bundle of certificates")
    environment = {name: bundle}
    monkeypatch.setattr(os, "environ", environment)
    use_certificates()
    assert environment["SSL_CERT_FILE"] == bundle
    assert bundle in (environment.get("REQUESTS_CA_BUNDLE"), environment.get("CURL_CA_BUNDLE"))


def test_variables_that_are_set_stay(monkeypatch, tmp_path):
    if (bundle := ssl.get_default_verify_paths().cafile) is None:
        pytest.skip("this machine has no bundle of certificates")
    for given in ({}, {"SSL_CERT_FILE": bundle, "REQUESTS_CA_BUNDLE": str(tmp_path)}):
        environment = dict(given)
        monkeypatch.setattr(os, "environ", environment)
        use_certificates()
        assert environment == given


@pytest.mark.parametrize("kept", ["openai/runs/glossary", "azureml/runs/glossary-on-azure"])
def test_who_reads_a_run_needs_none(monkeypatch, tmp_path, kept):
    shutil.copytree(Path(__file__).parents[1] / "old_runs" / kept, tmp_path / "run")
    monkeypatch.setenv("SSL_CERT_FILE", "/nowhere")
    for words in (("show",), ("logs",), ("checkpoints",)):
        assert performed((*words, str(tmp_path / "run")), lambda: 0.0).code == 0
    monkeypatch.setattr("trainer.cli.logs.time.sleep", _interrupt)
    run = Run(tmp_path / "run")
    run.set_status("running")
    followed = performed(("logs", str(run.path), "--follow"), lambda: 0.0)
    assert (followed.code, followed.errors) == (130, [])
    assert "SSL_CERT_FILE: is '/nowhere'" in followed.err


def test_who_talks_to_an_adapter_that_is_here_needs_none(monkeypatch, tmp_path):
    shutil.copytree(Path(__file__).parents[1] / "old_runs/azureml/runs/glossary-on-azure", tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "adapter")
    monkeypatch.setenv("SSL_CERT_FILE", "/nowhere")
    [told] = performed(("chat", str(tmp_path / "run"), "hi"), lambda: 0.0).errors
    assert "has no adapter" in told


def test_a_service_that_cannot_be_asked_hides_nothing_that_bills(monkeypatch, tmp_path):
    shutil.copytree(Path(__file__).parents[1] / "old_runs/openai/runs/glossary", tmp_path / "one")
    thing = Thing("openai", "deployment", "one", "here", "much", "trainer teardown one")
    Ledger(tmp_path / "one").write(thing, "exists")
    monkeypatch.setenv("SSL_CERT_FILE", "/nowhere")
    listed = performed(("endpoints", "--root", str(tmp_path)), lambda: 0.0)
    assert (listed.code, "one: SSL_CERT_FILE: is '/nowhere'" in listed.err) == (0, True)
    assert "bills: deployment one of one: much" in listed.out


def _interrupt(seconds):
    raise KeyboardInterrupt
