"""Runs measurements one after the other, each in a process of its own, and keeps each result as soon as it is known."""

import faulthandler
import json
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

Report = Callable[..., None]  # takes the values that were measured, by name
NOT_MEASURED = "not measured"


class Skipped(Exception):
    """Cannot be measured here; the text says why."""


@dataclass(frozen=True)
class Setting:
    """What all measurements share."""

    device: str
    tiny: bool
    folder: str  # scratch, the same for all
    start: str = "fork"  # how a process begins: as a fork, with all that was imported, or by `spawn`
    rate: float | None = None  # FLOP per second of large bfloat16 products, once part a has measured it


@dataclass(frozen=True)
class Measurement:
    part: str
    name: str
    measure: Callable[[Setting, Report], None]
    fresh: bool = False  # in a process that has imported nothing


class Results:
    """The file that survives whatever happens: a JSON object a line, the last of which may be cut off."""

    def __init__(self, folder: Path, stem: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.path, self.log = folder / f"{stem}.jsonl", folder / f"{stem}.log"
        self.begin = b"" if self._ends_with_a_line() else b"\n"
        with self.path.open("ab"):
            pass  # that it can be written is known before anything is measured

    def _ends_with_a_line(self) -> bool:
        return not self.path.exists() or self.path.read_bytes()[-1:] in (b"", b"\n")

    def add(self, **values: Any) -> None:
        with self.path.open("ab") as file:
            file.write(self.begin + json.dumps(values).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
        self.begin = b""

    def newest(self) -> dict[tuple[str, str], dict[str, Any]]:
        """Each measurement's newest result, by part and name; that it was not measured again is none."""
        found: dict[tuple[str, str], dict[str, Any]] = {}
        for text in self.path.read_text(encoding="utf-8").splitlines():
            with suppress(json.JSONDecodeError):  # cut off
                line = json.loads(text)
                key = (line["part"], line["name"])
                if line["state"] != NOT_MEASURED or found.get(key, line)["state"] not in ("measured", "failed"):
                    found[key] = line
        return found


def run(
    measurements: list[Measurement],
    setting: Setting,
    results: Results,
    end: float,
    limits: Mapping[str, float],
) -> bool:
    """Measure one after the other, each within its part's time and what is left of the whole.

    Returns whether none failed: by a crash, by being cut off, or by a value that breaks a promise.
    """
    ends: dict[str, float] = {}
    holds = True
    for measurement in measurements:
        part_end = min(end, ends.setdefault(measurement.part, time.monotonic() + limits[measurement.part]))
        if time.monotonic() >= part_end:
            _tell(results, measurement, NOT_MEASURED, "the time was up")
            continue
        state, values = _measured(measurement, setting, results, part_end)
        holds = holds and state != "failed"
        if measurement.part == "a" and values.get("gemm_flop_per_second"):
            setting = replace(setting, rate=values["gemm_flop_per_second"])
    return holds


def broken_promises(values: Mapping[str, Any]) -> list[str]:
    """Measured values that must not be: a result that is not exact, a kernel compiled anew, a wait for the device."""
    return [
        f"{name} is {value}"
        for name, value in values.items()
        if (name.endswith(("exact", "bit_identical")) and value is False)
        or (name in ("recompilations", "synchronizations") and isinstance(value, int) and value > 0)
    ]


def _measured(measurement: Measurement, setting: Setting, results: Results, end: float) -> tuple[str, dict[str, Any]]:
    """Run one measurement in a child, and write down each of its results as it comes; its state and all of them."""
    context = multiprocessing.get_context("spawn" if measurement.fresh else setting.start)
    mine, childs = context.Pipe(duplex=False)
    begin, values, state, why = time.monotonic(), dict[str, Any](), "", ""
    child = context.Process(target=_child, args=(measurement, setting, childs, str(results.log)))
    child.start()
    childs.close()
    try:
        while not state:
            if not mine.poll(max(0.0, end - time.monotonic())):
                state, why = "failed", f"cut off after {time.monotonic() - begin:.0f} s"
                break
            found, state, why = mine.recv()
            values |= found
            if not state:
                results.add(part=measurement.part, name=measurement.name, state="under way", values=values)
    except EOFError:
        state = "failed"
    finally:  # an interrupt comes here, too
        _stop(child, wants_stack=why.startswith("cut off"))
    if state == "measured" and (broken := broken_promises(values)):
        state, why = "failed", ", ".join(broken)
    why = why or ("" if state == "measured" else f"its process ended with {child.exitcode}")
    _tell(results, measurement, state, why, values, time.monotonic() - begin)
    return state, values


def _stop(child: Any, wants_stack: bool) -> None:
    """End the child and what it has started: it leads a process group of its own."""
    if wants_stack:
        with suppress(ProcessLookupError):
            os.kill(child.pid, signal.SIGUSR1)  # the log gets the lines at which it was
    wait([child.sentinel], 1)  # without taking its exit code: until then its group's number is nobody else's
    with suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
    child.join(0.1)
    if child.is_alive():  # it had no group yet
        child.kill()
        child.join()


def _tell(
    results: Results,
    measurement: Measurement,
    state: str,
    why: str,
    values: dict[str, Any] | None = None,
    seconds: float = 0,
) -> None:
    told: dict[str, Any] = {"state": state, "why": why, "seconds": round(seconds, 1), "values": values or {}}
    results.add(part=measurement.part, name=measurement.name, **told)
    line = ", ".join(
        f"{key} {_short(value)}" for key, value in told["values"].items() if not isinstance(value, list | dict)
    )
    why = f" ({why})" if why else ""
    print(f"{measurement.part}  {measurement.name}: {state}{why} in {seconds:.1f} s  {line}", flush=True)


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _child(measurement: Measurement, setting: Setting, pipe: Connection, log: str) -> None:
    os.setpgid(0, 0)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)
    with Path(log).open("ab", buffering=0) as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    faulthandler.register(signal.SIGUSR1, all_threads=True)
    print(f"\n=== {measurement.part} {measurement.name}", flush=True)
    state, why = "measured", ""
    try:
        measurement.measure(setting, lambda **values: pipe.send((values, "", "")))
    except Skipped as reason:
        state, why = NOT_MEASURED, str(reason)
    except BaseException as error:
        import traceback

        traceback.print_exc()
        first = (str(error).strip().splitlines() or [""])[0][:200]
        state, why = "failed", f"{type(error).__name__}: {first}"
    pipe.send(({}, state, why))
    pipe.close()
    sys.stdout.flush()
    os._exit(0)  # no destructors of a library that was imported before the fork
