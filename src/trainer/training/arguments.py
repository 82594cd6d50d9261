"""Arguments of TRL and torch: precision, optimizer and our schedule, with everything off that could touch the data."""

import math
from functools import partial

import torch
from peft import PeftModel
from torch.optim.lr_scheduler import LambdaLR
from trl import SFTConfig

from trainer.config.schema import RunConfig
from trainer.model.adapter import trainable
from trainer.runs import Run
from trainer.training.plan import TrainingPlan
from trainer.training.trackers import TrackedArguments, shown_settings


def trl_arguments(config: RunConfig, plan: TrainingPlan, run: Run, model: PeftModel) -> SFTConfig:
    """TRL's settings: our schedule and precision; everything that it could do to the data is off."""
    dtype = next(iter(model.get_input_embeddings().parameters())).dtype
    arguments = TrackedArguments(
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
        report_to=[],
        run_name=config.tracking.wandb.name or run.name,
    )
    arguments.ours = shown_settings(config)
    arguments._n_gpu = min(arguments.n_gpu, 1)  # more GPUs in one process would mean DataParallel
    return arguments


def make_optimizer(config: RunConfig, plan: TrainingPlan, model: PeftModel) -> torch.optim.Optimizer:
    """Fused, because only torch's fused optimizers can skip an update by a flag on the device."""
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


def make_schedule(optimizer: torch.optim.Optimizer, kind: str, warmup_steps: int, total_steps: int) -> LambdaLR:
    """The rate rises over the warm-up, then falls as the config says, and is never 0 in a step.

    Sets the optimizer's rate for step 1, and for the next step at each call of its `step`.
    """
    return LambdaLR(optimizer, partial(share_of_rate, kind=kind, warmup_steps=warmup_steps, total_steps=total_steps))


def share_of_rate(steps_done: int, kind: str, warmup_steps: int, total_steps: int) -> float:
    """The share of the run's learning rate that the step after `steps_done` trains with.

    Step k of n warm-up steps has k / (n + 1), and the first step after them all of it.
    """
    if steps_done < warmup_steps:
        return (steps_done + 1) / (warmup_steps + 1)
    falling = max(1, total_steps - warmup_steps)
    match kind:
        case "linear":
            return max(0.0, (total_steps - steps_done) / falling)
        case "cosine":
            return max(0.0, 0.5 * (1.0 + math.cos(math.pi * ((steps_done - warmup_steps) / falling))))
        case _:
            return 1.0
