"""`trainer export`: a run's model in a folder of its own."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from trainer.cli.console import Debug, Root, RunName, command, out, say
from trainer.errors import ConfigError
from trainer.runs import find_run

if TYPE_CHECKING:
    from trainer.inference.export import Export


@command
def export(
    run: RunName,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="DIR", help="The new folder.")],
    merge: Annotated[
        bool, typer.Option("--merge", help="Add the adapter to the base's weights: a model that needs no adapter.")
    ] = False,
    dtype: Annotated[
        Literal["float32", "bfloat16", "float16"] | None,
        typer.Option(help="Number format of a merged model, by default the one that was trained in."),
    ] = None,
    max_drift: Annotated[
        float | None, typer.Option(min=0, help="Accept this much drift instead, in nats a token.", metavar="NATS")
    ] = None,
    root: Root = Path("runs"),
    debug: Debug = False,
) -> None:
    """Write a run's adapter, or the merged model, to a new folder that transformers and vLLM load.

    Both are compared with the trained model on the run's own rows; what drifts too far is not exported.
    """
    if dtype is not None and not merge:
        raise ConfigError("--dtype: given without --merge, expected with it; an adapter keeps its number format")
    found = find_run(run, root)

    from trainer.inference.output_folder import refuse_output
    from trainer.inference.trained import trained_adapter

    trained_adapter(found)
    refuse_output(output, num_bytes=0)

    from trainer.backends import local  # imports torch: what can be told without it has been told
    from trainer.inference.export import export_run

    local.be_quiet()
    _show(export_run(found, output, merge, dtype, max_drift, say))


def _show(result: "Export") -> None:
    drift, change, accepted = result.drift, result.change, result.bounds.mean_kl
    say(f"rows     {drift.num_answers} of {result.rows}")
    say(f"drift    {drift.mean_kl:.1e} nats a token, accepted {accepted:.0e}; tuning changed {change.mean_kl:.1e}")
    say(f"tokens   {drift.num_same_choice} of {drift.num_tokens} have the same first choice")
    say(f"answers  {drift.num_same_answers} of {drift.num_answers} are the same")
    if result.loss is not None:
        say(f"loss     {result.loss.measured:.4f} on the validation rows, in training {result.loss.recorded:.4f}")
    out.print(str(result.folder), markup=False)
