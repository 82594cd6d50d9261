"""Known sentences of the service get the advice that helps against what is behind them."""

import httpx2
import pytest
from openai import APIStatusError

from trainer.backends.openai.client import OPENAI_URL
from trainer.backends.openai.refusals import (
    CLOSED_ON_AZURE,
    CLOSING,
    ROLE,
    explained_deployment,
    explained_job,
)
from trainer.errors import BackendError


def refused(status: int, code: str, message: str) -> BackendError:
    response = httpx2.Response(status, request=httpx2.Request("POST", "https://x"))
    error = BackendError("creating the job: as it was; wait")
    error.__cause__ = APIStatusError(message, response=response, body={"error": {"code": code, "message": message}})
    return error


JOBS = [
    (400, "invalidPayload", "The fineTuningJob field is required.", "this route does not read one of the values"),
    (
        400,
        "invalidPayload",
        "The specified base model gpt-oss-20b-11 does not support fine-tuning with Standard TrainingType.",
        "set openai.training_type to GlobalStandard",
    ),
    (
        400,
        "invalidPayload",
        "The specified base model x does not support fine-tuning with Developer TrainingType.",
        "name another openai.training_type",
    ),
    (400, "invalidPayload", "The specified base model does not support fine-tuning.", "not tuned in this region"),
    (
        400,
        "invalidPayload",
        "Finetuning with o4-mini-2025-04-16 requires the reinforcement method of finetuning.",
        "takes another method of fine-tuning",
    ),
    (
        400,
        "invalidPayload",
        "The specified file reference must point to a completed file import.",
        "run the same command again",
    ),
    (400, "BadRequest", "API version not supported", "set another openai.api_version, or none"),
    (400, "invalidPayload", "images are not supported for provided model", "takes no images"),
    (
        400,
        "invalidPayload",
        "The provided training data failed RAI checks for harm types: [hate].",
        "the training data did not pass the service's content checks; nothing was billed",
    ),
    (
        400,
        "BadRequest",
        "Data is not suitable: it exceeds the thresholds of the harm types hate, violence.",
        "the training data did not pass the service's content checks; nothing was billed",
    ),
    (429, "quotaExceeded", "20 jobs wait already", "the resource is full"),
    (403, "Forbidden", "no", "Azure closes a model to those"),
]


@pytest.mark.parametrize(("status", "code", "message", "advice"), JOBS)
def test_a_refused_job_is_explained(status: int, code: str, message: str, advice: str) -> None:
    text = str(explained_job(refused(status, code, message), is_azure=True))
    assert text.startswith(f"creating the job: the service answered {status}: {code}: {message.removesuffix('.')}; ")
    assert advice in text.rpartition("; ")[2] or advice in text


@pytest.mark.parametrize(
    ("status", "code", "message", "advice"),
    [
        (500, "InternalServerError", "An internal server error occurred.", "a wrong format of the model"),
        (400, "InsufficientQuota", "The capacity is above the available quota 50.", "a smaller --capacity"),
        (400, "InvalidResourceProperties", "The specified SKU 'x' is not supported.", "name another --sku"),
        (400, "BadRequest", "the model scores above acceptable thresholds", "content checks"),
        (400, "BadRequest", "The model is unable to be deployed.", "content checks"),
        (400, "DeploymentModelNotSupported", "The model 'x' is not known here.", "the resource does not know"),
        (403, "AuthorizationFailed", "no", "deploying needs the role Foundry Owner, or the right a/b"),
    ],
)
def test_a_refused_deployment_is_explained(status: int, code: str, message: str, advice: str) -> None:
    assert advice in str(explained_deployment(refused(status, code, message), "a/b"))


def test_words_that_nobody_knows_stay_as_they_are() -> None:
    error = refused(400, "invalidPayload", "something new")
    assert explained_job(error, is_azure=True) is error
    assert explained_deployment(error, "a/b") is error


@pytest.mark.parametrize(
    ("code", "message", "is_azure", "url", "advice"),
    [
        ("fine_tuning_not_available", "This organization may not create new jobs.", False, OPENAI_URL, CLOSING),
        ("", "You have insufficient permissions. Missing scopes: model.request", False, OPENAI_URL, "the key may not"),
        ("", "no", False, "https://models.example/v1", "the key may not"),
        ("PermissionDenied", "The principal lacks the required data action fine-tunes/write", True, "", ROLE),
        ("", "The model is not available to this subscription.", True, "", f"{CLOSED_ON_AZURE}; else {ROLE}"),
    ],
)
def test_a_403_is_a_missing_right_or_a_closed_platform(
    code: str, message: str, is_azure: bool, url: str, advice: str
) -> None:
    text = str(explained_job(refused(403, code, message), is_azure, url))
    assert text.partition("; ")[2].startswith(advice), text
