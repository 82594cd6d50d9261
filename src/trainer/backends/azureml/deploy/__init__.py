"""From a run's adapter to an endpoint and back: register, plan, deploy, list, talk to, tear down."""

from trainer.backends.azureml.deploy.client import client
from trainer.backends.azureml.deploy.endpoints import endpoints
from trainer.backends.azureml.deploy.plan import plan_deployment
from trainer.backends.azureml.deploy.register import register
from trainer.backends.azureml.deploy.rollout import deploy
from trainer.backends.azureml.deploy.teardown import teardown

__all__ = ["client", "deploy", "endpoints", "plan_deployment", "register", "teardown"]
