"""The report and its figures in a run's trackers, beside the metrics that training logged there.

A tracker's own run stays open until this process ends, or can be opened again: what training began is added to. A later
process finds only MLflow's, whose run is noted in the log.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any

from trainer.inference.report.mlflow_artifact import log_report
from trainer.runs import Run

Numbers = Mapping[str, float]
Words = Mapping[str, str]
COUNTS = ("answers", "better", "same", "worse")


def attach_report(run: Run, warn: Callable[[str], None]) -> None:
    """Give the run's report to its trackers; what one of them lacks is told, and undoes nothing."""
    for name in run.config().tracking.report_to:
        if name in ATTACH:
            try:
                result = run.comparison()
                ATTACH[name](run, numbers_of(result), words_of(result))
            except Exception as error:  # of any kind: a tracker has many ways to fail
                shown = (str(error).strip().splitlines() or [type(error).__name__])[0]
                warn(f"the report was not stored in {TITLES.get(name, name)}: {shown}")


def numbers_of(result: Mapping[str, Any]) -> dict[str, float]:
    """Final figures of a comparison by name: each measure of both models, the rows' changes, what was kept."""
    if not result:
        return {}
    found: dict[str, Any] = {name: result["verdict"].get(name) for name in COUNTS}
    for measure in result["measures"]:
        found |= {f"{measure['key']}_{side}": measure[side] for side in ("base", "tuned")}
    suite = result.get("suite", {})
    found |= {f"suite_{name}": suite.get(name) for name in ("base_right", "kept", "lost", "gained")}
    return {f"report/{name}": float(value) for name, value in found.items() if isinstance(value, int | float)}


def words_of(result: Mapping[str, Any]) -> dict[str, str]:
    """The verdict in a word and in a sentence."""
    return {f"report/{name}": str(result["verdict"][name]) for name in ("kind", "sentence")} if result else {}


def _artifact(run: Run) -> str:
    return f"{re.sub(r'[^A-Za-z0-9_.-]+', '-', run.name)}-report"


def _mlflow(run: Run, numbers: Numbers, words: Words) -> None:
    log_report(run)


def _wandb(run: Run, numbers: Numbers, words: Words) -> None:
    import wandb

    if wandb.run is not None:
        wandb.run.summary.update({**numbers, **words})
        artifact = wandb.Artifact(_artifact(run), type="report")
        artifact.add_dir(str(run.report))
        wandb.run.log_artifact(artifact)


def _trackio(run: Run, numbers: Numbers, words: Words) -> None:
    """Its callback has ended the run, which is opened again by its name."""
    import trackio

    if (project := trackio.context_vars.current_project.get()) is not None:
        trackio.init(project=project, name=run.name, resume="allow", embed=False)
        trackio.config.update(dict(words))
        trackio.log(dict(numbers))
        trackio.log_artifact(str(run.report), name=_artifact(run), type="report")
        trackio.finish()


def _comet(run: Run, numbers: Numbers, words: Words) -> None:
    import comet_ml

    if (experiment := comet_ml.get_running_experiment()) is not None:
        experiment.log_metrics(dict(numbers))
        experiment.log_others(dict(words))
        experiment.log_asset_folder(str(run.report), log_file_name=True)


def _swanlab(run: Run, numbers: Numbers, words: Words) -> None:
    import swanlab

    if swanlab.has_run():
        swanlab.log(dict(numbers))
        swanlab.config.update(dict(words))
        swanlab.save(str(run.report / "*"), base_path=str(run.path), policy="now")


def _clearml(run: Run, numbers: Numbers, words: Words) -> None:
    from clearml import Task

    if (task := Task.current_task()) is not None:
        for name, value in numbers.items():
            task.get_logger().report_single_value(name, value)
        task.upload_artifact("report", artifact_object=str(run.report))


TITLES = {"mlflow": "MLflow"}
ATTACH: dict[str, Callable[[Run, Numbers, Words], None]] = {
    "mlflow": _mlflow,
    "wandb": _wandb,
    "trackio": _trackio,
    "comet_ml": _comet,
    "swanlab": _swanlab,
    "clearml": _clearml,
}
