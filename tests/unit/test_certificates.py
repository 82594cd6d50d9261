"""A variable that names no certificates is told as what it is, before a service is asked."""

import ssl

import pytest

from trainer.backends.choose import choose
from trainer.certificates import FILES, check_certificates
from trainer.errors import ConfigError


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
