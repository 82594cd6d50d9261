"""The section `azureml.deployment:`, used by `trainer deploy` and `trainer register`."""

from typing import Literal

from trainer.config.fields import Count, Flag, Length, Positive, Section, Text


class DeploymentConfig(Section):
    """How a model is put behind a managed online endpoint."""

    mode: Literal["score", "vllm"] = "score"
    """`score`: the scoring script on Azure ML's inference server, the trained model as it is, one request at a time and whole answers. `vllm`: vLLM with the adapter on its base, for many requests at a time, with streaming."""

    instance_type: Text | None = None
    """The machine, for example `Standard_NC4as_T4_v3`. Default: the one of the training job."""

    instance_count: Count = 1
    """How many machines answer; each bills."""

    auth: Literal["key", "entra"] = "key"
    """How clients prove who they are: a key of the endpoint, or a token of Microsoft Entra and a role on the endpoint."""

    max_requests: Count = 32
    """Requests at a time on a machine, with `vllm`; more are told to try again. With `score` it is one."""

    max_tokens: Length = 1024
    """The longest answer in tokens, with `score`."""

    max_length: Length | None = None
    """The longest conversation in tokens that `vllm` keeps room for. Default: what the base can read."""

    tool_parser: Text | None = None
    """vLLM's name of the form in which the model calls tools (`--tool-call-parser`, for example `hermes`), for clients other than `trainer chat`, which reads the form that was trained by itself."""

    include_base: Flag = False
    """Upload the base with the model, for a base that needs a token, or a workspace that cannot reach the hub."""

    price_per_hour: Positive | None = None
    """What one machine costs an hour. Default: the Retail Prices API's figure."""

    egress: Flag = True
    """Whether the machines may reach the internet. The base comes from the hub unless `include_base` is set."""
