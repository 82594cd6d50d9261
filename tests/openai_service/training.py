"""A job's life: a function of how long it has been worked on."""

import csv
import io
import math
from typing import Any

from tests.openai_service.files import Files, kind_of, read_messages, rows_of
from tests.openai_service.state import ENDED, Job, State, TunedModel

VALIDATING_SECONDS = 2.0
QUEUED_SECONDS = 2.0
STEP_SECONDS = 1.0
FINISHING_SECONDS = 1.0
HARMFUL = "harmful content for a test"  # a row that holds it does not pass the safety check
RAI = "The job failed due to an unsafe training file. This file failed RAI checks for harm types: [hate_fairness]."
AZURE_ACCURACY = "validation_mean_token_accuracy"  # its CSV's word for what its checkpoints call valid_…


class Training:
    """Moves jobs on. `fails_with` ends every job in that error once it runs."""

    def __init__(self, state: State, files: Files) -> None:
        self.state, self.files = state, files
        self.fails_with: dict[str, Any] | None = None

    def advance(self, seconds: float) -> None:
        for job in list(self.state.jobs.values()):
            if job.state not in ENDED and job.state != "paused":
                job.elapsed += seconds
                self._move(job)

    def _move(self, job: Job) -> None:
        if job.state == "validating_files" and job.elapsed >= VALIDATING_SECONDS:
            self._validated(job)
        if job.state == "queued" and job.elapsed >= VALIDATING_SECONDS + QUEUED_SECONDS:
            self._started(job)
        if job.state in ("running", "pausing"):
            begun = VALIDATING_SECONDS + QUEUED_SECONDS
            for step in range(job.step + 1, min(job.num_steps, int((job.elapsed - begun) / STEP_SECONDS)) + 1):
                self._step(job, step)
            if job.state == "pausing":
                self.checkpoint(job)
                job.state = "paused"
                self.event(job, "Job paused.")
            elif job.elapsed >= begun + job.num_steps * STEP_SECONDS + FINISHING_SECONDS:
                self._succeeded(job)

    def event(self, job: Job, message: str, level: str = "info", data: dict[str, Any] | None = None) -> None:
        is_azure = self.state.is_azure
        event: dict[str, Any] = {
            "id": self.state.new_id("ftevent-"), "object": "fine_tuning.job.event", "created_at": self.state.at,
            "level": "warning" if level == "warn" and is_azure else level, "message": message,
            "type": "metrics" if data else "message",
        }  # fmt: skip
        job.events.append(event | ({"data": data} if data or is_azure else {"data": {}}))

    def fail(self, job: Job, code: str, message: str, param: str | None = None) -> None:
        job.state, job.finished_at = "failed", self.state.clock.now
        job.error = {"code": code, "message": message} | ({} if self.state.is_azure else {"param": param})
        self.event(job, message, "error")

    def cancel(self, job: Job) -> None:
        job.state, job.finished_at = "cancelled", self.state.clock.now
        self.event(job, "Fine-tuning job cancelled")

    def checkpoint(self, job: Job) -> None:
        """Keep the weights of the last finished step as a model."""
        if not job.step or any(kept["step_number"] == job.step for kept in job.checkpoints):
            return
        tuned, metrics = self._name(job), self._metrics(job, job.step, full=True)
        name = f"{tuned}:ckpt-step-{job.step}"
        job.checkpoints.append({
            "id": self.state.new_id("ftckpt_", 32), "object": "fine_tuning.job.checkpoint",
            "created_at": self.state.at, "fine_tuned_model_checkpoint": name, "fine_tuning_job_id": job.id,
            "step_number": job.step, "metrics": {"step": job.step} | metrics,
        })  # fmt: skip
        for old in job.checkpoints[:-3]:  # three can be used, the newest
            self.state.models.pop(old["fine_tuned_model_checkpoint"], None)
        learned = job.rows[: max(1, len(job.rows) * job.step // job.num_steps)]
        self.state.models[name] = TunedModel(name, job.model, job.id, learned, self.state.clock.now, True)
        self.event(job, f"Checkpoint created at step {job.step}")

    def _validated(self, job: Job) -> None:
        for key, param in ((job.training_file, "training_file"), (job.validation_file, "validation_file")):
            file = self.state.files.get(key or "")
            if key and file is None:
                return self.fail(job, "file_not_found", f"The file {key} has been deleted.", param)
            if file and file.problem and param == "training_file":
                problem = f"The job failed due to an invalid training file. {file.problem}"
                return self.fail(job, "invalid_training_file", problem, param)
            if file and any(kind_of(row) != job.method for row in rows_of(file.content)):
                problem = (
                    f"The job failed due to an invalid training file. Its rows are not for the method {job.method}."
                )
                return self.fail(job, "invalid_training_file", problem, param)
            if file and HARMFUL.encode() in file.content:
                return self.fail(job, "unsafe_training_file", RAI, param)
            if file and self.state.is_azure:
                self.event(job, f"Preprocessing completed for file {param.replace('_', ' ')}.")
        job.state = "queued"
        if not self.state.is_azure:
            self.event(job, "Files validated, moving job to queued state")
        return None

    def _started(self, job: Job) -> None:
        job.state = "running"
        self.event(job, "Finetuning started." if self.state.is_azure else "Fine-tuning job started")
        if self.fails_with:
            self.fail(job, self.fails_with["code"], self.fails_with["message"])

    def _step(self, job: Job, step: int) -> None:
        job.step = step
        epoch_ends = step % job.steps_an_epoch == 0
        metrics = self._metrics(job, step, epoch_ends)
        told = f"Step {step}/{job.num_steps}: training loss={metrics['train_loss']:.2f}"
        self.event(job, told, data={"step": step, "total_steps": job.num_steps} | metrics)
        if epoch_ends:
            self.checkpoint(job)

    def _metrics(self, job: Job, step: int, full: bool) -> dict[str, float]:
        part = step / job.num_steps
        loss = 0.4 + 2.0 * math.exp(-3.0 * part) + 0.05 * math.sin(step)
        found = {"train_loss": loss, "train_mean_token_accuracy": 1 - loss / 4}
        if job.validation_file:
            valid = 0.6 + 1.8 * math.exp(-3.0 * part)
            found |= {"valid_loss": valid, "valid_mean_token_accuracy": 1 - valid / 4}
            if full:
                found |= {"full_valid_loss": valid + 0.01, "full_valid_mean_token_accuracy": 0.99 - valid / 4}
        return {name: round(value, 4) for name, value in found.items()}

    def _succeeded(self, job: Job) -> None:
        state = self.state
        job.state, job.finished_at, job.fine_tuned_model = "succeeded", state.clock.now, self._name(job)
        state.models[job.fine_tuned_model] = TunedModel(
            job.fine_tuned_model, job.model, job.id, job.rows, state.clock.now
        )
        # As the service bills: tokens x epochs. It counts with its encoding; four characters are a token here.
        characters = sum(len(str(message.get("content") or "")) for row in job.rows for message in read_messages(row))
        job.trained_tokens = characters // 4 * job.n_epochs
        job.result_files = [self.files.add("step_metrics.csv", "fine-tune-results", self._csv(job)).id]
        if state.is_azure:
            self.event(job, "Training tokens billed: " + str(job.trained_tokens))
            self.event(job, f"Completed results file: {job.result_files[0]}")
        else:
            self.event(job, f"New fine-tuned model created: {job.fine_tuned_model}")
        self.event(job, "Job succeeded." if state.is_azure else "The job has successfully completed")

    def _csv(self, job: Job) -> bytes:
        names = [
            "train_loss", "train_mean_token_accuracy", "valid_loss", "valid_mean_token_accuracy",
            "full_valid_loss", "full_valid_mean_token_accuracy",
        ]  # fmt: skip
        title = {"valid_mean_token_accuracy": AZURE_ACCURACY} if self.state.is_azure else {}
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["step", *(title.get(name, name) for name in names)])
        for step in range(1, job.num_steps + 1):
            metrics = self._metrics(job, step, step % job.steps_an_epoch == 0)
            writer.writerow([step, *(metrics.get(name, "") for name in names)])
        return text.getvalue().encode()

    def _name(self, job: Job) -> str:
        suffix, own = job.asked.get("suffix"), job.id.removeprefix("ftjob-")
        base = job.model.split(".ft-")[0]
        if self.state.is_azure:
            return f"{base}.ft-{own:0<32.32}" + (f"-{suffix}" if suffix else "")
        base = job.model.split(":")[1] if job.model.startswith("ft:") else job.model
        return f"ft:{base}:demo-org:{suffix or ''}:{own[:8]}"
