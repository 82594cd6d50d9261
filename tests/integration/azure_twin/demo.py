"""The journey of a run through Azure ML, on this machine. Run: make demo-azureml"""

import argparse
import sys
import tempfile
from pathlib import Path

from tests.integration.azure_twin.blobs import Missing
from tests.integration.azure_twin.journey import Journey
from tests.integration.azure_twin.twin import working_twin
from tests.waiting import attended

PREFACE = """\
# This is NOT Azure: it is a twin of it on this machine. The commands are the real ones and believe to speak to
# https://management.azure.com; a proxy leads them to services on 127.0.0.1 that remember what was made. The job trains
# and the endpoint answers for real, with the builtin tiny model on this CPU. Prices are invented. Nothing leaves the
# machine and nothing costs; on your own subscription the same commands do the same, and do cost."""
AFTERWORD = """
# To do this for real: az login, put your workspace's names into configs/azureml.yaml, and type the same commands.
# What only a real subscription shows: quotas, capacity, roles, the building of images, GPUs and prices."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, help="where the transcript is written, too")
    given = parser.parse_args()
    lines: list[str] = []

    def show(line: str) -> None:
        print(line, flush=True)
        lines.append(line)

    show(PREFACE)
    print("# Starting it (the first time, azurite and three Python environments are installed: some minutes) ...")
    with tempfile.TemporaryDirectory(prefix="azure-twin-") as folder, attended(lambda line: print(line, flush=True)):
        try:
            with working_twin(Path(folder) / "twin") as twin:
                travel(Journey(twin, Path(folder) / "user", show))
        except Missing as missing:
            print(f"error: {missing}; install it and run this again", file=sys.stderr)
            return 2
    show(AFTERWORD)
    if given.output:
        given.output.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return 0


def travel(journey: Journey) -> None:
    journey.check()
    journey.train_until_all_dies()
    journey.resume()
    journey.look()
    journey.register()
    journey.deploy()
    journey.chat()
    journey.tear_down()
    journey.delete()
    journey.account()


if __name__ == "__main__":
    sys.exit(main())
