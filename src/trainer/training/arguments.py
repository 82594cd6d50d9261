"""What TRL and torch are told: our schedule and precision, and everything switched off that could touch the data."""

import torch
from peft import PeftModel
from transformers import TrainerCallback
from transformers.integrations import TensorBoardCallback
from trl import SFTConfig

from trainer.config.schema import RunConfig
from trainer.model.adapter import trainable
from trainer.runs import Run
from trainer.training.plan import Plan


def trl_arguments(config: RunConfig, plan: Plan, run: Run, model: PeftModel) -> SFTConfig:
    """TRL's settings: our schedule and precision; everything that it could do to the data is off."""
    dtype = next(iter(model.get_input_embeddings().parameters())).dtype
    arguments = SFTConfig(
        output_dir=str(run.path),
        num_train_epochs=plan.n_epochs,
        learning_rate=plan.learning_rate,
        lr_scheduler_type=config.training.lr_scheduler_type,  # for the trackers to show: the schedule is ours
        warmup_steps=plan.warmup_steps,
        max_grad_norm=config.training.max_grad_norm,
        seed=plan.seed,
        bf16=dtype == torch.bfloat16,
        fp16=dtype == torch.float16,
        use_cpu=not torch.cuda.is_available(),
        per_device_train_batch_size=1,
        gradient_accumulation_steps=1,
        gradient_checkpointing=False,
        max_length=None,
        packing=False,
        dataset_kwargs={"skip_prepare_dataset": True},
        remove_unused_columns=False,
        logging_nan_inf_filter=False,
        logging_strategy="no",
        eval_strategy="no",
        save_strategy="no",
        disable_tqdm=True,
        report_to=[name for name in config.tracking.report_to if name != "tensorboard"],
        run_name=run.name,
    )
    arguments._n_gpu = min(arguments.n_gpu, 1)  # more GPUs in one process would mean DataParallel
    return arguments


def tracker_callbacks(config: RunConfig, run: Run) -> list[TrainerCallback]:
    """TensorBoard writes into the run's folder, for which transformers has no setting."""
    if "tensorboard" not in config.tracking.report_to:
        return []
    from torch.utils.tensorboard import SummaryWriter

    return [TensorBoardCallback(SummaryWriter(run.path / "tensorboard"))]


def make_optimizer(config: RunConfig, plan: Plan, model: PeftModel) -> torch.optim.Optimizer:
    """Fused, because only torch's fused optimizers can be told on the device to skip an update."""
    settings, parameters = config.training, list(trainable(model).values())
    if settings.optimizer == "sgd":
        return torch.optim.SGD(parameters, lr=plan.learning_rate, weight_decay=settings.weight_decay, fused=True)
    return torch.optim.AdamW(
        parameters,
        lr=plan.learning_rate,
        betas=(settings.adam_beta1, settings.adam_beta2),
        eps=settings.adam_epsilon,
        weight_decay=settings.weight_decay,
        fused=True,
    )
