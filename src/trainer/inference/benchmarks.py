"""Published benchmarks of EleutherAI's lm-evaluation-harness, on a run's base and on its tuned model."""

import logging
import os
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainer.errors import ConfigError, TrainingError, similar
from trainer.extras import need
from trainer.inference.local import TunedModel
from trainer.runs import Run
from trainer.runs.run import now

if TYPE_CHECKING:
    from collections.abc import Callable

    from lm_eval.tasks import TaskManager

BATCH = 8  # questions at a time on a CPU; on a GPU the harness finds out
SEED = 1234


@dataclass(frozen=True, slots=True)
class BenchmarkSettings:
    """Tasks and their settings, in the harness' own words."""

    tasks: tuple[str, ...]
    folder: Path | None = None  # task files of the user's own
    limit: int | None = None  # questions of each task
    num_fewshot: int | None = None
    apply_chat_template: bool = False


def find_tasks(settings: BenchmarkSettings) -> "TaskManager":
    """The harness' index of tasks, which has all that are wanted. Raises: ConfigError, MissingDependency."""
    need("trainer evaluate --tasks", "lm_eval", extra="lm-eval")
    if settings.folder is not None and not settings.folder.is_dir():
        raise ConfigError(f"--tasks-path: is {str(settings.folder)!r}, expected a folder of task files; correct it")
    _be_quiet()
    from lm_eval.tasks import TaskManager

    index = TaskManager(include_path=None if settings.folder is None else str(settings.folder))
    if unknown := [name for name in settings.tasks if name not in index.all_tasks]:
        raise ConfigError(
            *(
                f"--tasks: has {name!r}{similar(name, index.all_tasks)}, expected a task of the harness; list them "
                "with: lm-eval ls tasks; or name the folder of your own with --tasks-path"
                for name in unknown
            )
        )
    return index


def run_benchmarks(
    run: Run, settings: BenchmarkSettings, index: "TaskManager", say: "Callable[[str], None]"
) -> dict[str, Any]:
    """The tasks' metrics of base and tuned model with standard errors, as report.json holds them.

    Raises: ConfigError, TrainingError.
    """
    import lm_eval

    if run.config().memory.shard_base is True:
        raise ConfigError(
            f"run {run.name!r}: its base was spread over several GPUs, expected one that fits on one for --tasks; "
            "export the run with --merge, and give the folder to lm-eval"
        )
    model = TunedModel(run)
    found = {}
    for key, adapter in (("base", False), ("tuned", True)):
        say(f"{key} model: {', '.join(settings.tasks)}")
        with nullcontext() if adapter else model.model.disable_adapter():
            found[key] = _evaluated(model, settings, index)
    return {
        "created_at": now(),
        "harness": f"lm-eval {lm_eval.__version__}",
        "adapter_step": run.status().get("adapter_step"),
        **{name: value for name, value in asdict(settings).items() if name not in ("tasks", "folder")},
        "metrics": _metrics(found["base"], found["tuned"]),
    }


def _evaluated(model: TunedModel, settings: BenchmarkSettings, index: "TaskManager") -> Mapping[str, Any]:
    """The harness' result for the model as it is. Raises: TrainingError, for any of its ways to fail."""
    from lm_eval import simple_evaluate
    from lm_eval.models.huggingface import HFLM

    on_gpu = model.model.device.type == "cuda"
    try:
        harnessed = HFLM(
            pretrained=model.model,
            tokenizer=model.tokenizer,
            max_length=model.max_length,
            batch_size="auto" if on_gpu else BATCH,
        )
        found: Mapping[str, Any] = simple_evaluate(
            harnessed,
            tasks=list(settings.tasks),
            task_manager=index,
            limit=settings.limit,
            num_fewshot=settings.num_fewshot,
            apply_chat_template=settings.apply_chat_template,
            log_samples=False,
            random_seed=SEED,
            numpy_random_seed=SEED,
            torch_random_seed=SEED,
            fewshot_random_seed=SEED,
        )
    except Exception as error:  # its tasks fetch data and run code of many authors
        words = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise TrainingError(
            f"--tasks: lm-eval could not run {', '.join(settings.tasks)}: {type(error).__name__}: {words}; most tasks "
            "fetch their questions from the model hub: see that it can be reached"
        ) from error
    return found


def _metrics(base: Mapping[str, Any], tuned: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A line for each metric of each task, with both models' values."""
    return [
        {
            "task": task,
            "metric": metric,
            "filter": filtered,
            "higher_is_better": base.get("higher_is_better", {}).get(task, {}).get(metric),
            "version": base.get("versions", {}).get(task),
            "questions": base.get("n-samples", {}).get(task, {}).get("effective"),
            "base": _value(values, metric, filtered),
            "tuned": _value(tuned["results"][task], metric, filtered),
        }
        for task, values in base["results"].items()
        for metric, filtered in _names(values)
    ]


def _names(values: Mapping[str, Any]) -> Sequence[tuple[str, str]]:
    """Metrics and their filters; the harness joins both with a comma."""
    pairs = [tuple(name.split(",", 1)) for name in values if "," in name]
    return [(metric, filtered) for metric, filtered in pairs if not metric.endswith("_stderr")]


def _value(values: Mapping[str, Any], metric: str, filtered: str) -> dict[str, float | None]:
    """The standard error is None where the harness has none."""
    found = {"value": values[f"{metric},{filtered}"], "stderr": values.get(f"{metric}_stderr,{filtered}")}
    return {name: float(value) if isinstance(value, int | float) else None for name, value in found.items()}


def _be_quiet() -> None:
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
