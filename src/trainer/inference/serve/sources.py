"""Sources of a server's models: runs, or a base that runs' models join later."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from trainer.config.schema import ModelConfig
from trainer.inference.serve.limits import Limits
from trainer.inference.serve.together import refuse_apart
from trainer.inference.trained import trained_adapter
from trainer.runs import Run

if TYPE_CHECKING:
    from trainer.inference.serve.loading import Loader, Report


class ModelSource(Protocol):
    """Models that a server loads once it listens."""

    @property
    def names(self) -> list[str]: ...

    @property
    def runs(self) -> Sequence[Run]: ...

    async def load(self, limits: Limits, report: "Report") -> "Loader":
        """All of them. Raises: ConfigError, ParityError."""


@dataclass(frozen=True, slots=True)
class SharedBase:
    """A base under a name, which runs' models join while it is served; `num_engines` models answer at a time.

    Its tokenizer is written below `folder`, once for all servers, for the process that renders to read.
    """

    name: str
    settings: ModelConfig
    folder: Path
    num_engines: int

    @property
    def names(self) -> list[str]:
        return [self.name]

    @property
    def runs(self) -> Sequence[Run]:
        return ()

    async def load(self, limits: Limits, report: "Report") -> "Loader":
        """The base, ready to begin. Raises: ConfigError."""
        from trainer.inference.serve.loading import load_base

        return await load_base(self.name, self.settings, self.folder, self.num_engines, limits, report)


@dataclass(frozen=True, slots=True)
class TrainedRuns:
    """Finished runs of one base. Raises: ConfigError, for those that cannot be served together."""

    runs: Sequence[Run]

    def __post_init__(self) -> None:
        for run in self.runs:
            trained_adapter(run)
        refuse_apart(self.runs)

    @property
    def names(self) -> list[str]:
        return [run.name for run in self.runs]

    async def load(self, limits: Limits, report: "Report") -> "Loader":
        """All of them, ready to answer. Raises: ConfigError, ParityError."""
        from trainer.inference.serve.loading import load_runs

        return await load_runs(self.runs, limits, report)
