"""Sources of a server's models: runs, or a base that runs' models join later."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from trainer.inference.serve.limits import Limits
from trainer.inference.serve.together import refuse_apart
from trainer.inference.trained import trained_adapter
from trainer.runs import Run

if TYPE_CHECKING:
    from trainer.inference.serve.loading import Loader, Report


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
