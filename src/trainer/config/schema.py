"""Every setting there is, as one frozen tree.

The docstring under a field is its only description: the JSON Schema, `docs/config.md` and `--help` are made from it.
A field that may be `auto` is given its number before a run starts; the run's `config.yaml` holds no `auto`.
"""

import math
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from trainer.config.azureml import AzureMLConfig
from trainer.config.fields import (
    Auto,
    Beta,
    Count,
    Epochs,
    Flag,
    Folder,
    Fraction,
    Length,
    Multiplier,
    Name,
    NonNegative,
    NonNegativeCount,
    Positive,
    Rank,
    Rate,
    Section,
    Seed,
    Smoothing,
    Suffix,
    Text,
    Weight,
    WeightOrZero,
)
from trainer.config.openai import OpenAIConfig
from trainer.kinds import Kind, Method

DEFAULT_BETA = 0.1  # of DPO's paper (arxiv.org/abs/2305.18290, appendix B)
BASE_LEARNING_RATE = 2e-4  # the usual rate for LoRA (QLoRA paper, table 9); learning_rate_multiplier scales it


class ModelConfig(Section):
    """The model to fine-tune, and its storage in memory."""

    base: Text
    """The model to start from: a hub id (`meta-llama/Llama-3.1-8B-Instruct`), a local folder, `builtin:tiny`, or an earlier run (`runs/<name>`, `runs/<name>@<step>`), whose adapter is then trained further."""

    revision: Text | None = None
    """Branch, tag or commit of a hub model. The commit that was used is written into the run's manifest."""

    quantization: Literal["none", "nf4", "int8"] = "none"
    """Storage of the frozen base weights: `nf4` (4 bit, QLoRA) and `int8` need a fraction of the memory. A base that is quantized already keeps its own scheme."""

    quantize_partly: Flag = False
    """Accept a quantization that leaves more than a tenth of the layers and experts unquantized, such as `int8`, which bitsandbytes has for no experts."""

    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Number format of the base weights and the computation. `auto`: bfloat16 where the GPU has it, else float16; on a CPU bfloat16 where it has units for it (AMX, AVX512-BF16) and the base, unquantized, has 50 million parameters or more, else float32. Adapter weights are always float32."""

    chat_template: Text | None = None
    """A Jinja file used instead of the tokenizer's own chat template; needed for bases that have none."""


class LoraSettings(Section):
    """The adapter's shape, in PEFT's names."""

    r: Rank = 16
    """Rank of the update: more can store more and costs more memory."""

    lora_alpha: Rank = 32
    """The update is scaled by `lora_alpha / r` (by `lora_alpha / sqrt(r)` with `use_rslora`)."""

    lora_dropout: Fraction = 0.0
    """Dropout on the adapter's input. 0 keeps the gradient independent of how a step is split."""

    target_modules: Literal["all-linear"] | Annotated[list[Text], Field(min_length=1)] = "all-linear"
    """Weights that get an adapter. `all-linear`: every linear layer but the output head, and the experts of a mixture, but not the routers that choose them. Or names of layers (`q_proj`), of parameters (`experts.down_proj`), or of modules that hold some (`experts`, `self_attn`). A router must be named itself."""

    use_rslora: Flag = False
    """Rank-stabilised scaling, for large `r`."""

    use_dora: Flag = False
    """Weight-decomposed LoRA (DoRA): often a little better, slower."""


class DataSource(Section):
    """A training file with a weight in the mixture."""

    path: Text
    """A chat JSONL file, in any of the forms of `data.train`."""

    weight: Weight = 1.0
    """Times that an epoch uses the file: 2 means every row twice, 0.5 a random half that changes each epoch."""


class DataConfig(Section):
    """The rows to learn, and the rows to hold out."""

    train: Text | Annotated[list[Text | DataSource], Field(min_length=1)]
    """A chat JSONL file, or a list of files, each a path or `{path, weight}`. A path may be a pattern (`data/*.jsonl`), a file compressed as `.gz` or `.zst`, `https://…`, a blob (`az://CONTAINER@ACCOUNT/PATH`), a data set of the hub (`hf://ORG/NAME?split=train`) or a data asset (`azureml:NAME:VERSION`). What is elsewhere is fetched once, before anything else, and its digest pinned in the manifest."""

    validation: Text | Annotated[list[Text], Field(min_length=1)] | None = None
    """Held-out rows in the same format and from the same places: they are never trained on and choose the best checkpoint."""

    max_length: Length | Auto = "auto"
    """The longest row in tokens. `auto`: what the model can read."""

    on_overlength: Literal["error", "drop", "truncate"] = "error"
    """Treatment of a longer row: `error` stops before training, `drop` leaves it out, `truncate` removes whole turns from the oldest on and keeps the system prompt and every answer whole."""

    train_reasoning: Flag | Auto = "auto"
    """Train the thought before an answer (`reasoning_content`) with it: `false` leaves it to be read only. `auto`: trained, where the rows have thoughts. An empty thought that a chat template writes is never trained."""

    allow_leak: Flag = False
    """Accept validation rows that also stand in the training data."""

    @property
    def train_sources(self) -> tuple[DataSource, ...]:
        """The training files in the order given, each with its weight."""
        entries = [self.train] if isinstance(self.train, str) else self.train
        return tuple(DataSource(path=entry) if isinstance(entry, str) else entry for entry in entries)

    @property
    def validation_paths(self) -> tuple[str, ...]:
        """The validation files in the order given; empty without validation."""
        if self.validation is None:
            return ()
        return (self.validation,) if isinstance(self.validation, str) else tuple(self.validation)


class DpoConfig(Section):
    """Direct preference optimization, for `training.method: dpo`. The openai backend takes `beta` alone."""

    beta: Beta | Auto = "auto"
    """The weight of staying close to the reference model; at most 2. `auto`: 0.1, and on the openai backend the service's choice."""

    loss: Literal["sigmoid", "ipo"] = "sigmoid"
    """`sigmoid`: the loss of DPO, which drives the two answers ever further apart. `ipo`: a squared loss with a margin of `1 / (2 * beta)` as its target, which overfits less on preferences without noise."""

    label_smoothing: Smoothing = 0.0
    """For the sigmoid loss: the share of rows whose preference is assumed to be the wrong way round (conservative DPO); below 0.5."""

    sft_weight: WeightOrZero = 0.0
    """Weight of the supervised loss on the preferred answers, added to the preference loss. Keeps their probability from falling together with that of the other answers."""

    reference: Literal["base", "run"] = "base"
    """The model that training stays close to: `base`, the model without any adapter, or `run`, the earlier run that `model.base` names, as it was before this training."""


class TrainingConfig(Section):
    """Training of the adapter."""

    method: Method = "sft"
    """`sft`: supervised fine-tuning on the assistant's messages of chat rows. `dpo`: direct preference optimization on preference rows, a prompt with a preferred and a non-preferred answer."""

    dpo: DpoConfig = DpoConfig()
    """Settings of `method: dpo`."""

    n_epochs: Epochs | Auto = "auto"
    """Passes over the training data. `auto`: 3, more for fewer than 34 rows and fewer for more than 8,333."""

    batch_size: Count | Auto = "auto"
    """Conversations per optimizer step, and nothing else: how they are split to fit in memory changes no result. `auto`: a twentieth of the rows, between 1 and 16."""

    learning_rate_multiplier: Multiplier | Auto = "auto"
    """The learning rate as a multiple of 2e-4, the usual one for LoRA. `auto`: 1."""

    learning_rate: Rate | None = None
    """The learning rate itself; give this or the multiplier."""

    seed: Seed | Auto = "auto"
    """Decides the order of the rows and the adapter's first weights; at most 2^32 - 1. `auto`: 42, so that one config is one result."""

    optimizer: Literal["adamw", "sgd"] = "adamw"
    """`adamw`, or plain `sgd` without momentum."""

    lr_scheduler_type: Literal["linear", "cosine", "constant"] = "cosine"
    """Decay of the learning rate after the warm-up: towards 0 in a line or a half cosine, or not at all."""

    warmup_ratio: Fraction = 0.03
    """Share of the steps over which the learning rate rises: step k of n has k / (n + 1) of it."""

    weight_decay: NonNegative = 0.0
    """AdamW's decoupled weight decay."""

    adam_beta1: Fraction = 0.9
    """AdamW's decay of the first moment."""

    adam_beta2: Fraction = 0.999
    """AdamW's decay of the second moment."""

    adam_epsilon: Positive = 1e-8
    """AdamW's term against division by zero."""

    max_grad_norm: NonNegative = 1.0
    """Gradients longer than this are shortened to it; 0 switches clipping off."""

    on_non_finite: Literal["stop", "skip"] = "stop"
    """Reaction to a loss or gradient that is NaN or infinite: `stop` fails the run before anything of it is stored, `skip` leaves the update out, and stops after five in a row."""

    deterministic: Flag = False
    """Only algorithms that give the same bits each time, so that a resumed run on a GPU equals one that never stopped, bit for bit. Slower; on a CPU it is so anyway."""

    logging_steps: Count | Auto = "auto"
    """Steps between two rows of `results.csv`. `auto`: about 100 rows a run, at most 10 steps apart."""

    eval_steps: Count | Auto = "auto"
    """Steps between two measurements of the validation loss, which is also measured at the end of each epoch. `auto`: four times an epoch where an epoch has at least 40 steps, else at epoch ends only."""

    eval_rows: Count = 200
    """`valid_loss` is measured on this many validation rows, always the same ones; `full_valid_loss` on all."""

    save_steps: Count | Auto = "auto"
    """Steps between two checkpoints; one is also written at the end of each epoch and for each new best. `auto`: a tenth of the run, at least 10 steps."""

    save_total_limit: Count = 3
    """Checkpoints kept: the newest this many, the best, and the permanent ones."""

    save_permanent_steps: Count | None = None
    """Steps between two checkpoints that are written and never deleted; `save_steps` can then be small."""

    early_stopping_patience: Count | None = None
    """Stop after this many measurements in a row without a better validation loss."""

    early_stopping_threshold: NonNegative = 0.0
    """Drop of the validation loss that counts as better."""

    adapter_from: Literal["best", "last"] = "best"
    """Checkpoint that becomes the run's adapter: the one with the lowest validation loss, or the last. Without validation data it is the last, and `best` cannot be asked for."""

    @model_validator(mode="after")
    def _one_learning_rate(self) -> Self:
        """Both may stand together only where they say the same, as they do in a run's resolved config."""
        if self.learning_rate is None or self.learning_rate_multiplier == "auto":
            return self
        if not math.isclose(self.learning_rate, self.learning_rate_multiplier * BASE_LEARNING_RATE, rel_tol=1e-6):
            raise PydanticCustomError(
                "both_set", "learning_rate and learning_rate_multiplier are both set, expected one of them"
            )
        return self


class MemoryConfig(Section):
    """Split of a step that fits the memory. It changes the speed and the memory, never the result."""

    token_budget: Length | Auto = "auto"
    """Tokens that go through the model at a time; what conversations share counts once. `auto`: what the free memory allows."""

    recompute_layers: NonNegativeCount | Auto = "auto"
    """Layers, from the first on, whose activations are recomputed in the backward pass (activation checkpointing): less memory, and up to a third more time. `auto`: none where it fits, else as many as cost less than a smaller `token_budget`."""

    shard_base: Flag | Auto = "auto"
    """Shard the base's layers over the run's processes (FSDP2), and gather a layer when it computes: for an unquantized base that no single GPU holds, at the price of sending all layers twice for each pack. `auto`: where the run has several processes and does not fit otherwise."""

    limit_gb: Positive | None = None
    """Plan with this much memory, in GiB (1024^3 bytes), although more may be free."""


class EvaluationConfig(Section):
    """Comparison of base and tuned model on the held-out rows at the end of a run."""

    enabled: Flag = True
    """Let both models answer the held-out rows once the adapter is stored, and write `report/`. Without held-out rows nothing is evaluated."""

    max_rows: Count | Auto = "auto"
    """At most this many held-out rows, drawn at random with the run's seed. `auto`: as many as hold 50 answers."""

    max_new_tokens: Length | Auto = "auto"
    """Length at which an answer is cut off, in tokens. `auto`: half as many again as the longest held-out answer, between 64 and 1,024."""

    gate: Literal["better", "not-worse"] | None = None
    """Condition on the comparison, beyond chance. If it does not hold, the run has still succeeded and keeps its model, `train` ends with exit code 3, and `register` and `deploy` refuse without --ignore-gate."""

    suite: Flag | Auto = "auto"
    """Let both models answer a suite of general items as well, which shows what the base could do and the tuned model has lost. `auto`: on a GPU, unless the base is builtin:tiny."""

    suite_items: Count | None = None
    """At most this many of the suite's items, evenly of every kind, for a run on a CPU. Unset: all."""


Tracker = Literal["clearml", "comet_ml", "dvclive", "mlflow", "neptune", "swanlab", "tensorboard", "trackio", "wandb"]


class WandbRun(Section):
    """The run at Weights & Biases, for `tracking.report_to: [wandb]`. Its key comes from the environment."""

    project: Text | None = None
    """The project. Default: WANDB_PROJECT, else `huggingface`."""

    entity: Text | None = None
    """The team or user. Default: WANDB_ENTITY, else that of the key."""

    name: Text | None = None
    """The run's name there. Default: the run's own."""

    tags: list[Text] = []  # noqa: RUF012  # pydantic copies it for each config
    """Tags of the run."""


class TrackingConfig(Section):
    """Trackers that also get the metrics."""

    report_to: list[Tracker] = []  # noqa: RUF012  # pydantic copies it for each config
    """Experiment trackers, set up by their own environment variables, for example MLFLOW_TRACKING_URI or WANDB_MODE=offline. They get the metrics and every setting. One that fails is left out, and the run continues."""

    wandb: WandbRun = WandbRun()
    """Names at Weights & Biases."""


class BackendConfig(Section):
    """The place where the run executes."""

    kind: Kind = "local"
    """`local`: on this machine, on its GPU or CPU. `azureml`: the same training as a job of Azure Machine Learning. `openai`: the fine-tuning service of OpenAI or Azure OpenAI."""

    spend_cap: Positive | None = None
    """The most that a run may cost, in the currency of its quote: a dearer quote is refused, and a job is ended in time where the service can do that. Unset: what was quoted and confirmed."""

    auto_deploy: Flag = False
    """On Azure OpenAI: deploy the tuned model as soon as the run has succeeded and a command follows it. The deployment is checked and quoted with the run, and agreed to with it; one that bills by the hour needs `spend_cap`, which then covers it until Azure deletes it unused."""


class RunSettings(Section):
    """Name and place of the run."""

    name: Name | None = None
    """The run's name and folder. Default: date and time, base and suffix. An existing run is never overwritten."""

    suffix: Suffix | None = None
    """A word of yours at the end of the default name; without effect where `run.name` is set."""

    root: Folder = "runs"
    """The folder that holds the runs. `--root` of a command wins over it, and it over the variable TRAINER_RUNS."""


class RunConfig(Section):
    """Everything about one run: the file behind `train --config`."""

    model: ModelConfig
    data: DataConfig
    lora: LoraSettings = LoraSettings()
    training: TrainingConfig = TrainingConfig()
    memory: MemoryConfig = MemoryConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    tracking: TrackingConfig = TrackingConfig()
    backend: BackendConfig = BackendConfig()
    azureml: AzureMLConfig = AzureMLConfig()
    openai: OpenAIConfig = OpenAIConfig()
    run: RunSettings = RunSettings()
