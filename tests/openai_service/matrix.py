"""Every fault in every operation, and beside it what the SDK does by itself. Run: python -m tests.openai_service.matrix

Exit code 1 where a promise did not hold in one of the cells.
"""

import argparse
import json
import logging
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from importlib.metadata import version
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from tests.loopback import FAULTS
from tests.openai_service.cells import LASTING, Cell, run_cell
from tests.openai_service.deviations import unexplained
from tests.openai_service.operations import OPERATIONS, Operation, Stages
from tests.openai_service.plain_sdk import jobs_created
from tests.openai_service.state import Flavour
from tests.openai_service.world import World, world

FLAVOURS: tuple[Flavour, ...] = ("openai", "azure")


def operations_of(flavour: Flavour) -> list[Operation]:
    return [operation for operation in OPERATIONS if flavour in operation.flavours]


def cells_of(made: World, only: str = "") -> Iterator[Cell]:
    stages = Stages(made)
    for operation in operations_of(made.flavour):
        if only in operation.name:
            print(f"{made.flavour}: {operation.name}", file=sys.stderr, flush=True)
            for fault in (*FAULTS, *LASTING):
                yield run_cell(made, stages, operation, fault)


def plain(rows: bytes) -> list[dict[str, Any]]:
    """The SDK's own cells: one call that creates a job."""
    found = []
    for fault in FAULTS:
        jobs, told = jobs_created(fault, rows)
        unknown = jobs if told != "a job" else 0
        found.append({"fault": fault.name, "jobs": jobs, "told": told, "duplicates": max(0, jobs - 1),
                      "unknown_to_the_caller": max(unknown, jobs - 1)})  # fmt: skip
    return found


def summary(cells: Sequence[Cell], sdk: Sequence[dict[str, Any]]) -> dict[str, Any]:
    return {
        "cells": len(cells), "happened": sum(cell.happened for cell in cells),
        "succeeded_in_spite": sum(cell.code == 0 for cell in cells),
        "ended_in_one_message": sum(cell.code != 0 and bool(cell.message) for cell in cells),
        "duplicates": sum(cell.duplicates for cell in cells), "unledgered": sum(cell.unledgered for cell in cells),
        "cells_with_problems": sum(bool(cell.problems) for cell in cells),
        "longest_wait_seconds": max((cell.waited_seconds for cell in cells), default=0.0),
        "plain_sdk_cells": len(sdk), "plain_sdk_duplicates": sum(cell["duplicates"] for cell in sdk),
        "plain_sdk_unknown_to_the_caller": sum(cell["unknown_to_the_caller"] for cell in sdk),
    }  # fmt: skip


def by_operation(cells: Sequence[Cell]) -> list[dict[str, Any]]:
    """How each operation's faults ended."""
    rows = []
    for flavour, name in dict.fromkeys((cell.flavour, cell.operation) for cell in cells):
        own = [cell for cell in cells if (cell.flavour, cell.operation) == (flavour, name)]
        rows.append({
            "operation": name, "service": flavour, "faults": len(own), "got over": sum(cell.code == 0 for cell in own),
            "one message": sum(bool(cell.message) for cell in own), "duplicates": sum(cell.duplicates for cell in own),
            "unledgered": sum(cell.unledgered for cell in own), "problems": sum(bool(cell.problems) for cell in own),
        })  # fmt: skip
    return rows


def table(rows: Sequence[dict[str, Any]]) -> str:
    width = max(len(row["operation"]) for row in rows)
    lines = [f"{'operation':{width}}  " + "  ".join(name for name in rows[0] if name != "operation")]
    for row in rows:
        cells = [f"{value:>{len(name)}}" for name, value in row.items() if name != "operation"]
        lines.append(f"{row['operation']:{width}}  " + "  ".join(cells))
    return "\n".join(lines)


def of_flavour(flavour: Flavour, only: str) -> tuple[list[Cell], list[str], bytes]:
    """The cells of one service, what its contract check found, and the rows that were trained."""
    logging.disable(logging.WARNING)
    with tempfile.TemporaryDirectory() as folder, world(Path(folder), flavour) as made:
        cells = list(cells_of(made, only))
        findings = [str(finding) for finding in unexplained(flavour, made.contract.findings)]
        return cells, findings, (made.folder / "train.jsonl").read_bytes()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, help="where the cells are written as JSON")
    parser.add_argument("--only", default="", help="operations whose name holds this")
    parser.add_argument("--flavour", choices=FLAVOURS, action="append")
    arguments = parser.parse_args()
    begun, flavours = time.perf_counter(), arguments.flavour or FLAVOURS
    with ProcessPoolExecutor(len(flavours), mp_context=get_context("spawn")) as pool:
        parts = list(pool.map(of_flavour, flavours, [arguments.only] * len(flavours)))
    cells = [cell for part in parts for cell in part[0]]
    findings, rows = [finding for part in parts for finding in part[1]], parts[0][2]
    sdk = plain(rows)
    found = summary(cells, sdk) | {"contract_findings": findings, "seconds": round(time.perf_counter() - begun)}
    rows_of_table = by_operation(cells)
    print(table(rows_of_table))
    for cell in cells:
        for problem in cell.problems:
            print(f"PROBLEM {cell.flavour} {cell.operation} / {cell.fault}: {problem}")
    print(json.dumps(found, indent=2))
    if arguments.output:
        versions = {name: version(name) for name in ("openai", "azure-identity", "azure-mgmt-cognitiveservices")}
        wrong = [cell.record() for cell in cells if cell.problems]
        record = {"summary": found, "versions": versions, "operations": rows_of_table, "wrong": wrong, "plain_sdk": sdk}
        arguments.output.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    return int(bool(found["cells_with_problems"] or findings))


if __name__ == "__main__":
    sys.exit(main())
