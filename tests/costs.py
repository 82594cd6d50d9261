"""What tests cost and measure, at the end of pytest's output: pytest-xdist shows nothing that a test prints.

`--costs N` lists the N files that took the most CPU time, that of the processes they started included. A machine that
others use too stretches the wall clock, and CPU time little. What a test gives to `record_property` is always shown.
"""

import resource
from collections import defaultdict
from collections.abc import Generator, Iterable
from typing import Any

import pytest

CPU_SECONDS = "cpu_seconds"
_counted_until = 0.0


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--costs", type=int, default=0, metavar="N", help="list the N files that took most CPU time")


def pytest_runtest_logstart() -> None:
    global _counted_until
    _counted_until = _cpu_seconds()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Fixtures that several tests share count for the first of them."""
    global _counted_until
    report = yield
    now = _cpu_seconds()
    report.user_properties = [*report.user_properties, (CPU_SECONDS, now - _counted_until)]
    _counted_until = now
    return report


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    reports = [
        report
        for several in terminalreporter.stats.values()
        for report in several
        if isinstance(report, pytest.TestReport)
    ]
    for title, lines in (
        ("measured by tests", measured(reports)),
        ("CPU seconds by file", costs(reports, config.getoption("costs"))),
    ):
        if lines:
            terminalreporter.section(title)
            for line in lines:
                terminalreporter.line(line)


def measured(reports: Iterable[pytest.TestReport]) -> list[str]:
    """A line for each property that a test has recorded."""
    return [
        f"{report.nodeid}: {name}: {value}"
        for report in reports
        if report.when == "call"
        for name, value in report.user_properties
        if name != CPU_SECONDS
    ]


def costs(reports: Iterable[pytest.TestReport], number: int) -> list[str]:
    """The total and the heaviest files, or nothing where nobody asked."""
    files: defaultdict[str, float] = defaultdict(float)
    for report in reports:
        for name, value in report.user_properties:
            if name == CPU_SECONDS:
                files[report.nodeid.split("::", 1)[0]] += float(str(value))
    heaviest = sorted(files.items(), key=lambda entry: -entry[1])[:number]
    return [f"{seconds:8.1f}  {file}" for file, seconds in [*heaviest, ("all files", sum(files.values()))] if number]


def _cpu_seconds() -> float:
    spent = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(used.ru_utime + used.ru_stime for used in spent)
