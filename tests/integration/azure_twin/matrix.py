"""Every fault in every operation, in a time of its own. Run: python -m tests.integration.azure_twin.matrix

Exit code 1 where a promise did not hold: nothing twice, nothing unledgered, bounded time, one message that says what
to do, and the same command once more reaches the end.
"""

import argparse
import json
import logging
import re
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tests.commands import Done
from tests.integration.azure_twin.blobs import Missing
from tests.integration.azure_twin.commands import World
from tests.integration.azure_twin.operations import OPERATIONS, Operation, Stages
from tests.integration.azure_twin.twin import twin
from tests.loopback import FAULTS, Fault

MOST_SECONDS = 900.0  # of a command's waiting


@dataclass(frozen=True)
class Cell:
    """What has become of a command. `problems` is empty where everything promised has held."""

    operation: str
    fault: str
    happened: bool  # the command made the call, so that the fault has come
    code: int
    message: str  # empty: the command has succeeded in spite of the fault
    duplicates: tuple[str, ...]
    unledgered: tuple[str, ...]
    waited_seconds: float
    problems: tuple[str, ...]


def run_cell(world: World, stages: Stages, operation: Operation, fault: Fault) -> Cell:
    stages.enter(operation.stage, operation.uploads)
    own = fault.fresh(operation.match)
    for service in (world.twin.service, world.twin.door):
        service.faults = [own]  # one fault, wherever its call arrives
    done = world.command(*operation.words)
    happened = own.times < fault.times
    problems = [] if happened else ["the call was not made"]
    problems += _told(done)
    duplicates, unledgered = world.duplicates(), world.unledgered()
    for service in (world.twin.service, world.twin.door):
        service.faults = []
    if done.code or not operation.check(world):
        if not done.code:
            problems.append("the command succeeded without its effect")
        again = world.command(*operation.again)
        if again.code:
            problems.append(f"not mended by {' '.join(operation.again)}: {again.err[-400:]}")
        elif not operation.check(world):
            problems.append(f"{' '.join(operation.again)} succeeded without its effect")
    duplicates, unledgered = duplicates or world.duplicates(), unledgered or world.unledgered()
    if duplicates or unledgered:
        problems.append(f"twice: {duplicates}, in no ledger: {unledgered}")
    if vanished := world.vanished():
        problems.append(f"the ledger holds what is gone: {vanished}")
    message = " ".join(done.errors)[:600]
    return Cell(operation.name, fault.name, happened, done.code, message, tuple(duplicates), tuple(unledgered),
                round(done.waited_seconds, 1), tuple(problems))  # fmt: skip


def _told(done: Done) -> list[str]:
    problems = []
    if done.has_traceback:
        problems.append(f"a traceback: {(done.out + done.err)[-600:]}")
    if done.code and not done.errors:
        problems.append(f"exit code {done.code} without a message: {done.err[-300:]}")
    if done.errors and ";" not in " ".join(done.errors):
        problems.append(f"says not what to do: {done.errors}")
    if done.waited_seconds > MOST_SECONDS:
        problems.append(f"waited {done.waited_seconds:.0f} s")
    return problems


def cells(world: World, only: str, faults: Sequence[Fault]) -> Iterator[Cell]:
    stages = Stages(world)
    for operation in OPERATIONS:
        if re.search(only, operation.name):
            print(operation.name, file=sys.stderr, flush=True)
            for fault in faults:
                yield (cell := run_cell(world, stages, operation, fault))
                for problem in cell.problems:
                    print(f"  {fault.name}: {problem}", file=sys.stderr, flush=True)


def table(found: Sequence[Cell]) -> str:
    lines = [f"{'operation':18}  faults  got over  one message  duplicates  unledgered  problems"]
    for name in dict.fromkeys(cell.operation for cell in found):
        own = [cell for cell in found if cell.operation == name]
        over, told = sum(cell.code == 0 for cell in own), sum(cell.code != 0 and bool(cell.message) for cell in own)
        twice, unknown = (sum(len(getattr(cell, field)) for cell in own) for field in ("duplicates", "unledgered"))
        wrong = sum(bool(cell.problems) for cell in own)
        lines.append(f"{name:18}  {len(own):6}  {over:8}  {told:11}  {twice:10}  {unknown:10}  {wrong:8}")
    return "\n".join(lines)


def summary(found: Sequence[Cell]) -> dict[str, Any]:
    return {
        "cells": len(found), "happened": sum(cell.happened for cell in found),
        "succeeded_in_spite": sum(cell.code == 0 for cell in found),
        "ended_in_one_message": sum(cell.code != 0 and bool(cell.message) for cell in found),
        "duplicates": sum(len(cell.duplicates) for cell in found),
        "unledgered": sum(len(cell.unledgered) for cell in found),
        "cells_with_problems": sum(bool(cell.problems) for cell in found),
        "longest_wait_seconds": max((cell.waited_seconds for cell in found), default=0.0),
    }  # fmt: skip


def main() -> int:
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, help="where the cells are written as JSON")
    parser.add_argument("--only", default="", help="operations whose name holds this pattern")
    parser.add_argument("--fault", default="", help="faults whose name holds this pattern")
    given = parser.parse_args()
    begun, found = time.perf_counter(), list[Cell]()
    faults = [fault for fault in FAULTS if re.search(given.fault, fault.name)]
    try:
        with tempfile.TemporaryDirectory() as folder, twin(Path(folder) / "twin") as made:
            found += cells(World(made, Path(folder) / "user"), given.only, faults)
            findings, refused = made.arm.types.findings, made.proxy.refused
    except Missing as missing:
        print(missing, file=sys.stderr)
        return 2
    print(table(found))
    for cell in found:
        for problem in cell.problems:
            print(f"PROBLEM {cell.operation} / {cell.fault}: {problem}")
    told = summary(found) | {"type_findings": sorted(set(findings)), "outside": sorted(set(refused))}
    told["seconds"] = round(time.perf_counter() - begun)
    print(json.dumps(told, indent=2))
    if given.output:
        versions = {name: version(name) for name in ("azure-ai-ml", "azure-core", "azure-storage-blob")}
        record = {"summary": told, "versions": versions, "cells": [asdict(cell) for cell in found]}
        given.output.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    return int(bool(told["cells_with_problems"]))


if __name__ == "__main__":
    sys.exit(main())
