"""The files for accelerate's launcher: it reads them, and starts what they say."""

import shlex
from pathlib import Path

import pytest
from accelerate.commands.config.config_args import ClusterConfig, load_config_from_file
from accelerate.commands.launch import launch_command_parser

ROOT = Path(__file__).parents[3]
FILES = sorted((ROOT / "configs" / "accelerate").iterdir())
PROCESSES = {"cpu.yaml": (2, 1), "gpus.yaml": (8, 1), "machines.yaml": (16, 2)}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_accelerate_reads_it_and_its_header_says_how_to_launch(path: Path) -> None:
    found = load_config_from_file(str(path))
    assert isinstance(found, ClusterConfig)
    assert (found.num_processes, found.num_machines) == PROCESSES[path.name]
    # MULTI_CPU would start one process; FSDP and DeepSpeed would not be used.
    assert found.distributed_type == "MULTI_GPU"
    (command,) = [line.removeprefix("# Run:").strip() for line in path.read_text().splitlines() if "# Run:" in line]
    program, verb, *arguments = shlex.split(command)
    assert (program, verb) == ("accelerate", "launch")
    parsed = launch_command_parser().parse_args(arguments)
    assert (parsed.config_file, parsed.module) == (f"configs/accelerate/{path.name}", True)
    assert parsed.training_script == "trainer"
    train, option, config = parsed.training_script_args
    assert (train, option, (ROOT / config).is_file()) == ("train", "--config", True)
