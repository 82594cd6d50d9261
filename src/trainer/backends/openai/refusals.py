"""Refusals of the service with what is behind them: its own sentences, as documents and field reports quote them."""

from trainer.backends.http import Failure, failure_of, refusal
from trainer.backends.openai.client import OPENAI_URL
from trainer.backends.openai.training_types import UNREAD
from trainer.errors import BackendError

REFUSED = (400, 403, 404, 409, 429)
CLOSING = (
    "self-serve fine-tuning is closing: api.openai.com takes jobs only of organizations that use a tuned model, and "
    "none from 2027-01-06; Azure OpenAI continues for existing customers; other backends do without it"
)
CLOSED_ON_AZURE = (
    "Azure closes a model to those who have not tuned it before, and later to all: see the days in trainer models"
)
ROLE = "training needs the role Cognitive Services OpenAI Contributor or Foundry User on the resource"
OF_RIGHTS = ("permission", "scope", "authoriz", "principal", "data action", "role")  # that are lacking, in a 403
JOB_ADVICE = (
    (
        (UNREAD,),
        (
            "this route does not read one of the values, most likely openai.training_type: name another one, or set "
            "openai.api_version, whose routes have other words"
        ),
    ),
    (
        ("standard trainingtype",),
        "the model has no regional training: set openai.training_type to GlobalStandard",
    ),
    (
        ("trainingtype", "training type"),
        "the model is not trained so: name another openai.training_type; see: trainer models",
    ),
    (
        ("requires the reinforcement method", "method of finetuning", "method of fine-tuning"),
        "the model takes another method of fine-tuning than this: name another model.base; see: trainer models",
    ),
    (
        ("does not support fine-tuning", "not support fine tuning"),
        "the model is not tuned in this region or as this openai.training_type; see: trainer models",
    ),
    (
        ("completed file import", "file import not completed"),
        "the service had not finished reading the file: run the same command again",
    ),
    (("api version not supported", "unsupported api version"), "set another openai.api_version, or none"),
    (("images are not supported",), "the model takes no images, or the identity lacks the role Foundry User"),
    (("rai checks", "harm types"), "the training data did not pass the service's content checks; nothing was billed"),
    (
        ("quota", "too many", "limit", "maximum number"),
        "the resource is full: 3 jobs run at a time, 100 exist; wait, or delete old jobs",
    ),
    (("not available", "no longer", "deprecat", "not allowed", "not authorized", "not supported for your"), CLOSING),
)
DEPLOYMENT_ADVICE = (
    (
        ("insufficientquota", "quota"),
        (
            "tuned deployments have a quota of their own, which ends in -finetune: ask for a smaller --capacity, "
            "delete deployments, or request more for the region"
        ),
    ),
    (("sku",), "the model has no such deployment in this region: name another --sku"),
    (
        ("acceptable thresholds", "unable to be deployed"),
        "the tuned model did not pass the service's content checks; train on other data",
    ),
    (("deploymentmodelnotsupported", "model format", "invalid model"), "the resource does not know this model"),
)
UNTOLD = (
    "for a model of a publisher other than OpenAI, a wrong format of the model ends like this: see format in the "
    "built-in table of models; else wait and run the same command again"
)


def explained_job(error: BackendError, is_azure: bool, url: str = "") -> BackendError:
    """The refusal of a new job, with advice where its words are known."""
    cause, doing = error.__cause__, "creating the job"
    if isinstance(cause, Exception) and failure_of(cause).status == 403:
        failure = failure_of(cause)
        return refusal(failure, doing, _of_a_right(failure, is_azure, url))
    return _explained(error, doing, JOB_ADVICE, "")


def _of_a_right(failure: Failure, is_azure: bool, url: str) -> str:
    """Advice on a 403, which a service answers to whom it has closed fine-tuning, too."""
    text = f"{failure.code} {failure.message}".lower()
    lacks = any(word in text for word in OF_RIGHTS)
    if is_azure:
        return ROLE if lacks else f"{CLOSED_ON_AZURE}; else {ROLE}"
    if lacks or url != OPENAI_URL:
        return "the key may not create jobs there: use one with the right to fine-tune"
    return CLOSING


def explained_deployment(error: BackendError, right: str) -> BackendError:
    """The refusal of a new deployment, with advice where its words are known; 500 without a word is one of them."""
    cause, doing = error.__cause__, "creating the deployment"
    if isinstance(cause, Exception) and failure_of(cause).status == 500:
        return refusal(failure_of(cause), doing, UNTOLD)
    return _explained(error, doing, DEPLOYMENT_ADVICE, f"deploying needs the role Foundry Owner, or the right {right}")


def _explained(
    error: BackendError, doing: str, advice: tuple[tuple[tuple[str, ...], str], ...], role: str
) -> BackendError:
    cause = error.__cause__
    if not isinstance(cause, Exception):
        return error
    failure = failure_of(cause)
    if failure.status == 403 and role:
        return refusal(failure, doing, role)
    text = f"{failure.code} {failure.message}".lower()
    for words, hint in advice if failure.status in REFUSED else ():
        if any(word in text for word in words):
            return refusal(failure, doing, hint)
    return error
