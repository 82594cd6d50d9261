"""The report in MLflow, beside the metrics that training logged there."""

from trainer.runs import Run

STORED = "mlflow_report"


def remember_mlflow_run(run: Run) -> None:
    """Note in the run's log which MLflow run training has just logged to, so that a later report finds it."""
    import mlflow

    if (found := mlflow.active_run() or mlflow.last_active_run()) is not None:
        run.event("logged to MLflow", kind="mlflow", run_id=found.info.run_id)


def log_report(run: Run) -> None:
    """Store `report/` as an artifact of the MLflow run that training logged to, replacing an earlier one."""
    import mlflow

    ids = [event["data"]["run_id"] for event in run.events() if event["type"] == "mlflow"]
    if ids:
        mlflow.MlflowClient().log_artifacts(ids[-1], str(run.report), "report")
        run.event("the report is stored in MLflow", kind=STORED)


def report_is_unlogged(run: Run) -> bool:
    """True if training logged to MLflow, and the report that was made since is not there."""
    kinds = [event.get("type") for event in run.events()]
    if "mlflow" not in kinds or "evaluation" not in kinds:
        return False
    return STORED not in kinds[len(kinds) - kinds[::-1].index("evaluation") :]
