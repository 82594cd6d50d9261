"""Certificates that are trusted, where variables of the environment say so."""

import os
import ssl
from pathlib import Path

from trainer.errors import ConfigError

FILES = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
FOLDER = "SSL_CERT_DIR"


def use_certificates() -> None:
    """Let every client trust what one variable names: OpenAI's reads SSL_CERT_FILE only, Azure's the two others only.

    Raises: ConfigError, when a variable names what holds no certificates.
    """
    check_certificates()
    given = next((path for name in (*FILES, FOLDER) if (path := os.environ.get(name))), None)
    if given is None:
        return
    of_openai = FOLDER if Path(given).is_dir() else "SSL_CERT_FILE"
    if not os.environ.get(of_openai):
        os.environ[of_openai] = given
    if not any(map(os.environ.get, ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"))):
        os.environ["REQUESTS_CA_BUNDLE"] = given


def check_certificates() -> None:
    """Look at the variables before a service is asked: its clients would end in a FileNotFoundError that names nothing.

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
