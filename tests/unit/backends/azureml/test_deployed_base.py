"""The base of a deployment: no container bills while it fails to download one."""

from dataclasses import replace

import pytest

from trainer.backends.azureml.deploy.base import BaseFacts, check_base, takes_base
from trainer.errors import ConfigError

PUBLIC = BaseFacts("someone/Model", False, True, None, "score")
GATED = replace(PUBLIC, is_gated=True)
VAULT = "https://kv.vault.azure.net"


@pytest.mark.parametrize(
    ("facts", "setting", "included"),
    [
        (None, "auto", False),  # it is no hub model, and comes along anyway
        (PUBLIC, "auto", False),
        (PUBLIC, True, True),
        (GATED, "auto", True),
        (replace(GATED, mode="vllm"), "auto", True),
        (replace(GATED, key_vault=VAULT), "auto", True),
        (GATED, False, False),
        (replace(PUBLIC, egress=False), "auto", True),
        (replace(PUBLIC, is_gated=None), "auto", False),
        (replace(PUBLIC, is_gated=None, key_vault=VAULT), "auto", True),
    ],
)
def test_auto_includes_what_a_container_may_not_download(
    facts: BaseFacts | None, setting: bool | str, included: bool
) -> None:
    assert takes_base(facts, setting) is included


@pytest.mark.parametrize(
    ("facts", "found"),
    [
        (replace(PUBLIC, egress=False), "azureml.deployment.egress: is false"),
        (GATED, "the endpoint's identity may read no key vault"),
        (replace(GATED, key_vault=VAULT), "the endpoint's identity may read no key vault"),
        (replace(GATED, mode="vllm", key_vault=VAULT, reads_vault=True), "vLLM's container reads no key vault"),
    ],
)
def test_a_base_that_no_container_gets_is_refused_with_the_way(facts: BaseFacts, found: str) -> None:
    with pytest.raises(ConfigError, match=found) as caught:
        check_base(facts, included=False)
    assert "set azureml.deployment.include_base=true" in str(caught.value)
    assert check_base(facts, included=True).outcome == "ok"


@pytest.mark.parametrize(
    ("facts", "outcome"),
    [
        (None, "ok"),
        (PUBLIC, "ok"),
        (replace(PUBLIC, is_gated=None), "not looked at"),
        (replace(GATED, key_vault=VAULT, reads_vault=True), "ok"),
    ],
)
def test_any_other_base_passes(facts: BaseFacts | None, outcome: str) -> None:
    assert check_base(facts, included=False).outcome == outcome
