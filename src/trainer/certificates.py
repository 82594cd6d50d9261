"""Which certificates are trusted, where variables of the environment say so."""

import os
import ssl
from pathlib import Path

from trainer.errors import ConfigError

FILES = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")


def check_certificates() -> None:
    """Before a service is asked: its clients would end in a FileNotFoundError that names nothing.

    Raises: ConfigError, when a variable names what holds no certificates.
    """
    problems = [
        f"{name}: is {path!r}, {problem}, expected a PEM file of certificates; correct the variable, or unset it"
        for name in FILES
        if (path := os.environ.get(name)) and (problem := _problem(Path(path)))
    ]
    if problems:
        raise ConfigError(*problems)


def _problem(path: Path) -> str | None:
    if path.is_dir():  # requests takes one
        return None
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cafile=path)
    except ssl.SSLError:
        return "which holds no certificates"
    except OSError as error:
        return f"which cannot be read ({error.strerror})"
    return None
