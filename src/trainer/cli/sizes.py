"""`trainer sizes`: the GPU machines that a run of a config can ask for, and what each has."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from trainer.cli.console import Debug, Format, Output, clean, command, print_rows, say
from trainer.errors import ConfigError

if TYPE_CHECKING:
    from trainer.backends.contract import MachineSize

COLUMNS = ("size", "GPUs", "GPU", "of GB", "cores", "memory GB", "disk GB", "driver", "as of", "retired")
GIB = 2**30


@command
def sizes(
    config: Annotated[Path, typer.Option("--config", "-c", metavar="FILE", help="A config of the azureml backend.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="KEY=VALUE", help="Settings, e.g. azureml.workspace=NAME.")
    ] = None,
    refresh: Annotated[
        bool, typer.Option("--refresh", help="Read what the subscription offers in the workspace's region first.")
    ] = False,
    output: Output = Format.text,
    debug: Debug = False,
) -> None:
    """List the GPU machines whose numbers are known."""
    from trainer.backends.choose import choose_service
    from trainer.config.load import load_config

    settings = load_config(config, overrides or [])
    service = choose_service(settings.backend.kind)
    if service is None:
        raise ConfigError(f"backend.kind: is {settings.backend.kind!r}, expected 'azureml', which rents machines")
    listed = service.sizes(settings, refresh, say)
    if output is Format.json:
        from trainer.cli.documents.plans import Size, Sizes

        Sizes(sizes=[Size.model_validate(size) for size in listed]).print()
        return
    print_rows(COLUMNS, map(_row, listed))


def _row(size: "MachineSize") -> tuple[str, ...]:
    numbers = (size.gpu_memory_bytes // GIB, size.num_cores, size.memory_bytes // GIB, size.disk_bytes // GIB)
    return (clean(size.name), str(size.num_gpus), size.gpu, *map(str, numbers), size.driver, size.as_of, size.retired)
