"""The page about one run: what the comparison found, how training went, and where the model comes from."""

import shlex
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

from trainer import __version__
from trainer.config.schema import RunConfig
from trainer.inference.evaluation.measures import BAR, MARGIN, MEASURES
from trainer.inference.evaluation.significance import Difference
from trainer.inference.report.page import (
    NUM_OPEN,
    NUM_SHOWN,
    capitalized,
    last_question,
    render_page,
    row_view,
    trusted,
)
from trainer.inference.tool_calls import Call
from trainer.kinds import is_service
from trainer.runs import Run
from trainer.runs.manifest import Manifest
from trainer.training.curve import recorded_curve

NUM_LOST = 20  # items, shown with both answers
TILES = ("right", "calls", "exact", "chrf", "token_accuracy", "loss")


def report_page(run: Run, result: Mapping[str, Any], plots: Mapping[str, str]) -> str:
    """The page for people."""
    against, columns = result["verdict"]["against"], columns_of(result)
    weakest = sorted(
        result["rows"], key=lambda row: (row["score"]["tuned"], row["score"]["tuned"] - row["score"][against])
    )
    titles = {"loss": "Loss", "token_accuracy": "Token accuracy"}
    return render_page(
        "report",
        f"{run.name}: fine-tuning report",
        run=run.name,
        base=run.manifest().base.name,
        created_at=result["created_at"][:16].replace("T", " ") + " UTC",
        verdict=result["verdict"],
        columns=list(columns.values()),
        before=columns[against],
        sentence=capitalized(result["verdict"]["sentence"]),
        criterion=criterion(result),
        remarks=[capitalized(remark) for remark in result["verdict"]["remarks"]],
        notes=[capitalized(note) for note in result["notes"]],
        tiles=list(_tiles(result)),
        measures=list(measure_rows(result)),
        kept=kept_view(result),
        judge=judge_view(result),
        benchmarks=benchmarks_view(result),
        learning=learning(run),
        curves=[(title, trusted(plots[name])) for name, title in titles.items() if name in plots],
        changes=trusted(plots["changes"]),
        rows=[row_view(row, list(columns)) for row in weakest[:NUM_SHOWN]],
        num_rows=len(weakest),
        num_open=min(NUM_OPEN, len(weakest)),
        num_hidden=max(0, len(weakest) - NUM_SHOWN),
        made=origin(run, result),
        commands=commands(run, result),
        version=__version__,
    )


def criterion(result: Mapping[str, Any]) -> str:
    """Sentence on the models compared, and on what makes a row better."""
    score = "chrF, which counts the character sequences that an answer shares with the reference answer"
    if has_calls(result):
        score = "chrF for texts; for tool calls 100 if names and arguments are right and 50 if only the names are"
    count, total, seed = result["num_rows"], result["num_held_out"], result["settings"]["seed"]
    rows = f"All {total:,} held-out rows were compared."
    if count < total:
        rows = f"{count:,} of {total:,} held-out rows were compared, drawn at random with seed {seed}."
    return (
        f"{rows} {BAR} A row is better when more of its answers are right or nearly right. Where as many are, its "
        f"score must be at least {MARGIN:g} points of 100 higher, and as much above what the reference answers of "
        f"other rows would score: the same tone is not enough. The score is {score}."
    )


def columns_of(result: Mapping[str, Any]) -> dict[str, str]:
    """The models, in the order in which they are shown, and what each is called; the last two are compared."""
    return {key: capitalized(name) if name == key else name for key, name in result["models"].items()}


def measure_rows(result: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The table of measures; the score is left out where it says the same as chrF."""
    from_base = {values["key"]: values["base"] for values in result["measures_from_base"]}
    for values in result["measures"]:
        difference = Difference(**values)
        measure = MEASURES[difference.key]
        if difference.key == "score" and not has_calls(result):
            continue
        interval = "one row only"
        if difference.low is not None and difference.high is not None:
            interval = f"{measure.text(difference.low, sign=True)} to {measure.text(difference.high, sign=True)}"
            if difference.low == difference.high:  # drawing alike rows again shows no spread, which is no certainty
                interval = "alike in all rows"
        yield {
            "title": measure.title,
            "meaning": measure.meaning,
            "values": [
                *([measure.text(from_base[difference.key])] if from_base else []),
                measure.text(difference.base),
                measure.text(difference.tuned),
            ],
            "change": measure.text(difference.change, sign=True),
            "interval": interval,
            "tone": tone(difference),
        }


def _tiles(result: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    rows = {row["title"]: row for row in measure_rows(result)}
    yield from (rows[MEASURES[key].title] for key in TILES if MEASURES[key].title in rows)


def kept_view(result: Mapping[str, Any]) -> dict[str, Any] | None:
    """Of the general items the sentence, the counts by kind, and those that were lost; None where none were asked."""
    suite = result.get("suite")
    if not suite:
        return None
    lost = [item for item in suite["items"] if item["base"]["right"] and not item["tuned"]["right"]]
    return {
        "sentence": capitalized(suite["sentence"]),
        "tone": {"lost": "bad", "gained": "good"}.get(suite["change"], ""),
        "kinds": [{"title": capitalized(kind.replace("-", " "))} | counts for kind, counts in suite["kinds"].items()],
        "omitted": len(suite["omitted"]),
        "lost": [
            {
                "question": item["prompt"][-1]["content"],
                "answers": [_said(name, item[key]) for key, name in (("base", "Base"), ("tuned", "Tuned"))],
            }
            for item in lost[:NUM_LOST]
        ],
        "num_hidden": max(0, len(lost) - NUM_LOST),
    }


def _said(name: str, answer: Mapping[str, Any]) -> dict[str, Any]:
    """The answer of a model, with its calls, and its thought apart."""
    text = "\n".join(filter(None, [answer["text"], *answer["calls"]])) or "(nothing)"
    return {"name": name, "text": text, "cut_off": not answer["ended"], "thought": answer.get("reasoning_content", "")}


def judge_view(result: Mapping[str, Any]) -> dict[str, Any] | None:
    """Outcome of a judge, with the pairs in which it finds the tuned answer worse; None without one."""
    judge = result.get("judge")
    if not judge:
        return None
    worse = [answer for answer in judge["answers"] if answer["outcome"] == "worse"]
    return {
        "sentence": capitalized(judge["sentence"]),
        "tone": {"better": "good", "worse": "bad"}.get(judge["kind"], ""),
        "remarks": [capitalized(remark) for remark in judge["remarks"]],
        "model": judge["model"],
        "endpoint": judge["endpoint"],
        "worse": [_judged(result, answer) for answer in worse[:NUM_LOST]],
        "num_hidden": max(0, len(worse) - NUM_LOST),
    }


def _judged(result: Mapping[str, Any], judged: Mapping[str, Any]) -> dict[str, Any]:
    row, against = result["rows"][judged["row"]], result["verdict"]["against"]
    answer = next(each for each in row["answers"] if each["message"] == judged["message"])
    names = columns_of(result)
    return {
        "question": last_question(row["messages"][: judged["message"]]),
        "answers": [_said(names[key], _with_calls_in_words(answer[key])) for key in (against, "tuned")],
        "reasons": [opinion["reason"] for opinion in judged["opinions"]],
    }


def _with_calls_in_words(answer: Mapping[str, Any]) -> dict[str, Any]:
    return {**answer, "calls": [str(Call(call["name"], call["arguments"])) for call in answer["calls"]]}


def benchmarks_view(result: Mapping[str, Any]) -> dict[str, Any] | None:
    """Published benchmarks of both models, each with its standard error; None where none were run."""
    found = result.get("benchmarks")
    if not found:
        return None
    parts = [found["harness"]]
    parts += [f"{found['num_fewshot']} examples before each question"] if found["num_fewshot"] is not None else []
    parts += [f"the first {found['limit']:,} questions of each task"] if found["limit"] is not None else []
    parts += ["in the chat template" if found["apply_chat_template"] else "without the chat template"]
    arrows = {True: "higher is better", False: "lower is better", None: ""}
    return {
        "settings": ", ".join(parts),
        "rows": [
            {
                "task": line["task"],
                "metric": line["metric"] + ("" if line["filter"] == "none" else f" ({line['filter']})"),
                "better": arrows[line["higher_is_better"]],
                "values": [_benchmark(line[key]) for key in ("base", "tuned")],
            }
            for line in found["metrics"]
        ],
    }


def _benchmark(measured: Mapping[str, float | None]) -> str:
    value, error = measured["value"], measured["stderr"]
    if value is None:
        return "none"
    return f"{value:.4f}" if error is None else f"{value:.4f} ± {error:.4f}"


def tone(difference: Difference) -> str:
    """`good` or `bad` where the interval leaves no doubt about the direction."""
    better = MEASURES[difference.key].better
    if not difference.is_clear or better is None:
        return ""
    return "good" if (difference.change > 0) == (better == "higher") else "bad"


def has_calls(result: Mapping[str, Any]) -> bool:
    """True if some row expects tool calls; without any, the score is chrF."""
    return any(values["key"] == "calls" for values in result["measures"])


def learning(run: Run) -> str:
    """Sentence on the step that became the adapter, and on overfitting or an end that came too early."""
    status = run.status()
    step, total = status.get("adapter_step"), status.get("total_steps")
    chosen = f"The adapter is from step {step:,} of {total:,}. " if step and total else ""
    curve, n_epochs = recorded_curve(run)
    if curve.best_step is None:
        return f"{chosen}Nothing was held out during training, so overfitting could not be seen."
    if note := curve.overfitting():
        return f"{chosen}Overfitting: {note}. From there on the model learned the training rows by heart."
    if note := curve.still_falling(n_epochs):
        return f"{chosen}{note[:1].upper()}{note[1:]}."
    return f"{chosen}No sign of overfitting: the loss on the held-out rows did not rise in the end."


def origin(run: Run, result: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Model, data, settings and time, each with its name."""
    manifest, config = run.manifest(), run.config()
    base, rows = manifest.base, manifest.rows
    pinned = base.revision or base.weights_sha256
    facts = [
        ("Base model", f"{base.name} ({pinned})" if pinned else base.name),
        ("Method", _method(config, manifest)),
        ("Training", _training(run, config, manifest)),
        ("Rows", f"{rows.train:,} trained, {rows.validation:,} held out"),
        ("Tokens", f"{manifest.num_tokens:,}, of which {manifest.num_supervised_tokens:,} supervised"),
        *((f"Data, {file.role}", f"{file.path} (sha256 {file.sha256[:16]}…)") for file in manifest.data),
        (
            "Compared on",
            f"{', '.join(result['files'])}; answers of up to {result['settings']['max_new_tokens']:,} tokens",
        ),
        ("Device", manifest.device),
        ("Time", f"{_training_time(run)}; {duration(result['seconds'])} for this comparison"),
        ("Versions", ", ".join(f"{name} {version}" for name, version in manifest.packages.items())),
    ]
    if parent := manifest.parent:
        step = f" at step {parent.step:,}" if parent.step else ""
        facts.insert(1, ("Trained further from", f"run {parent.run}{step}; the base is the model before both"))
    if manifest.git_revision:
        facts.append(("Git revision", manifest.git_revision))
    return facts


def _method(config: RunConfig, manifest: Manifest) -> str:
    if is_service(config.backend.kind):
        return "supervised fine-tuning by the service, in its own way"
    weights = "" if config.model.quantization == "none" else f", base weights in {config.model.quantization}"
    return f"LoRA of rank {config.lora.r}, alpha {config.lora.lora_alpha}, in {manifest.dtype}{weights}"


def _training(run: Run, config: RunConfig, manifest: Manifest) -> str:
    training = config.training
    rate, seed = f"learning rate multiplier {training.learning_rate_multiplier}", training.seed
    if training.learning_rate is not None:
        rate, seed = f"learning rate {training.learning_rate:g}", manifest.seed
    steps = run.status().get("total_steps") or run.status().get("step") or 0
    return f"{training.n_epochs} epochs, {steps:,} steps of {training.batch_size} conversations, {rate}, seed {seed}"


def commands(run: Run, result: Mapping[str, Any]) -> str:
    """Commands that repeat the run and its comparison."""
    settings, path = result["settings"], str(run.path)
    own = result["files"] == list(run.config().data.validation_paths)
    words = ["trainer", "evaluate", path, *([] if own else ["--rows", *result["files"]])]
    words += ["--max-rows", str(settings["max_rows"]), "--max-new-tokens", str(settings["max_new_tokens"])]
    train = ["train", "--config", f"{path}/config.yaml", f"run.name={run.name}-again"]
    return f"{shlex.join(train)}\n{shlex.join(words)}"


def _training_time(run: Run) -> str:
    """From the first moment to the last, with the time for which a run that was resumed lay still."""
    status = run.status()
    if not (status.get("created_at") and status.get("finished_at")):
        return "not finished"
    begin, end = (datetime.fromisoformat(status[key]) for key in ("created_at", "finished_at"))
    return f"{duration((end - begin).total_seconds())} from start to adapter"


def duration(seconds: float) -> str:
    """A time for people."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
