"""A secret of a Key Vault, read on the node with the job's identity."""

import json
import urllib.error
import urllib.parse
import urllib.request

from trainer.errors import ConfigError

VERSION = "7.4"  # of the Key Vault API
TIMEOUT_SECONDS = 30


def read_secret(vault: str, name: str) -> str:
    """The secret's newest value. Raises: ConfigError, without any part of it."""
    place = f"azureml.key_vault: the secret {name!r} of {vault}"
    try:
        request = urllib.request.Request(  # noqa: S310  # the config takes https only
            f"{vault}/secrets/{urllib.parse.quote(name, safe='')}?api-version={VERSION}",
            headers={"Authorization": f"Bearer {_token()}"},
        )
        opener = urllib.request.build_opener()  # urlopen would keep the proxy of the process's first call
        with opener.open(request, timeout=TIMEOUT_SECONDS) as answer:
            return str(json.load(answer)["value"])
    except urllib.error.HTTPError as error:
        raise ConfigError(
            f"{place}: cannot be read: the vault answered {error.code}; "
            "give the job's identity the role Key Vault Secrets User, and see that the secret exists"
        ) from None
    except (OSError, ValueError, KeyError) as error:
        raise ConfigError(f"{place}: cannot be read: {type(error).__name__}; see azureml.identity") from None


def _token() -> str:
    from azure.identity import DefaultAzureCredential

    try:
        return str(DefaultAzureCredential().get_token("https://vault.azure.net/.default").token)
    except Exception as error:  # the chain's many kinds
        raise OSError(type(error).__name__) from error
