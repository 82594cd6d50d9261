"""What was measured on a GPU, as a page of tables."""

from typing import Any

Lines = dict[tuple[str, str], dict[str, Any]]  # each measurement's newest result, by part and name
SPEED = (
    "tokens_per_second", "hardware_mfu", "peak_bytes", "estimated_bytes", "planned_bytes", "first_step_seconds",
    "gradient_cosine",
)  # fmt: skip
OURS = "this trainer"
HEADER = (
    "| rows | arm | tokens/s | this trainer is | hardware MFU | peak | estimated | planned | first step s | gradient |"
)


def table(lines: Lines, titles: dict[str, str]) -> str:
    """Where and with what it was measured, speed beside speed, and all else as it was written down."""
    where = lines.get(("a", "ceilings"), {}).get("values", {})
    what = ", ".join(f"{key} {value}" for key, value in where.items() if isinstance(value, str))
    page = [f"# Measured on {where.get('gpu') or where.get('cpu') or 'an unknown device'}", "", what]
    for part, title in titles.items():
        own = {name: line for (letter, name), line in lines.items() if letter == part}
        if own:
            page += ["", f"## {part}. {title}", "", *(_speed(own) if part in "cde" else _values(own))]
    return "\n".join(page) + "\n"


def _speed(own: dict[str, dict[str, Any]]) -> list[str]:
    """One row an arm; `this trainer is` says how many times faster than it on the same rows."""
    rows = [HEADER]
    rows.append("|---" * HEADER.count(" | ") + "|---|")
    for name, line in own.items():
        shape, _, arm = name.rpartition(": ")
        values = line["values"]
        if arm == "reference" and line["state"] == "measured":
            continue
        if line["state"] != "measured":
            rows.append(f"| {shape} | {arm} | {line['state']}: {line.get('why', '')} |  |  |  |  |  |  |  |")
            continue
        mine = _step_seconds(own.get(f"{shape}: {OURS}", {}))
        faster = f"{values['step_seconds'] / mine:.2f}x" if mine and arm != OURS else ""
        checkpointing = ", checkpointing" if values.get("checkpointing") else ""
        cells = [_cell(key, values.get(key)) for key in SPEED]
        rows.append(f"| {shape} | {arm}{checkpointing} | {cells[0]} | {faster} | {' | '.join(cells[1:])} |")
    return [*rows, *_against_the_best(own)]


def _step_seconds(line: dict[str, Any]) -> float | None:
    return line["values"].get("step_seconds") if line.get("state") == "measured" else None


def _against_the_best(own: dict[str, dict[str, Any]]) -> list[str]:
    """How many times faster this trainer is than the fastest way of TRL that was measured on the same rows."""
    fastest: dict[str, tuple[float, str]] = {}
    for name, line in own.items():
        shape, _, arm = name.rpartition(": ")
        seconds = _step_seconds(line)
        if arm.startswith("TRL") and seconds:
            fastest[shape] = min(fastest.get(shape, (seconds, arm)), (seconds, arm))
    lines = [""]
    for shape, (seconds, arm) in fastest.items():
        if mine := _step_seconds(own.get(f"{shape}: {OURS}", {})):
            lines.append(f"- {shape}: **{seconds / mine:.2f}x** the fastest of TRL's ways that were measured ({arm})")
    return lines if lines[1:] else []


def _values(own: dict[str, dict[str, Any]]) -> list[str]:
    rows = ["| what | values |", "|---|---|"]
    for name, line in own.items():
        values = "; ".join(f"{key} {_cell(key, value)}" for key, value in line["values"].items())
        state = "" if line["state"] == "measured" else f"**{line['state']}: {line.get('why', '')}** "
        rows.append(f"| {name} | {state}{values} |")
    return rows


def _cell(key: str, value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, dict):
        return ", ".join(f"{name} {_cell(name, inner)}" for name, inner in value.items())
    if isinstance(value, list):
        return ", ".join(_cell(key, inner) for inner in value)
    if key.endswith("_bytes"):
        return f"{value / 1e9:.1f} GB" if value >= 1e8 else f"{value / 1e6:.2f} MB"
    if key.endswith(("mfu", "share_idle")):
        return f"{value:.0%}"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
