"""`trainer export`: a run's model in a folder of its own."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from trainer.cli.console import Debug, Format, Output, Root, RunName, command, loading, out, say
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
        typer.Option(help="Number format of a merged model, by default that of training."),
    ] = None,
    max_drift: Annotated[
        float | None, typer.Option(min=0, help="Accept this much drift instead, in nats a token.", metavar="NATS")
    ] = None,
    accept_loss: Annotated[
        float | None,
        typer.Option(
            min=0,
            help="Accept a merged model that is worse by this much, in drift and in validation loss, in nats a token.",
            metavar="NATS",
        ),
    ] = None,
    root: Root = Path("runs"),
    output_format: Output = Format.text,
    debug: Debug = False,
) -> None:
    """Write a run's adapter, or the merged model, to a new folder that transformers and vLLM load.

    Both are compared with the trained model on the run's own rows; what drifts too far is not exported.
    """
    if dtype is not None and not merge:
        raise ConfigError("--dtype: given without --merge, expected with it; an adapter keeps its number format")
    if accept_loss is not None and not merge:
        raise ConfigError("--accept-loss: given without --merge, expected with it; an adapter loses nothing")
    found = find_run(run, root)

    from trainer.inference.output_folder import refuse_output
    from trainer.inference.trained import trained_adapter

    trained_adapter(found)
    refuse_output(output, num_bytes=0)

    with loading():
        from trainer.inference.export import Accepted, export_run
        from trainer.training.prepare import be_quiet  # imports torch: every check that does without has passed

        be_quiet()
    result = export_run(found, output, merge, dtype, Accepted(max_drift, accept_loss), say)
    if output_format is Format.json:
        from trainer.cli.documents import use

        use.Export.model_validate(result).print()
    else:
        _show(result)


def _show(result: "Export") -> None:
    drift, change, bounds = result.drift, result.change, result.bounds
    say(f"format   {result.dtype}, {result.num_bytes / 1e6:,.0f} MB of weights")
    say(f"rows     {drift.num_answers} of {result.rows}")
    say(
        f"drift    {drift.mean_kl:.1e} nats a token, accepted {bounds.mean_kl:.2g}; tuning changed {change.mean_kl:.1e}"
    )
    say(f"tokens   {drift.num_same_choice} of {drift.num_tokens} have the same first choice")
    say(f"answers  {drift.num_same_answers} of {drift.num_answers} are the same ({drift.same_answers:.0%})")
    if losses := result.losses:
        say(
            f"loss     {losses.export:.4f} on the validation rows, the run in {result.compared_in} {losses.run:.4f}: "
            f"{losses.change:+.4f}, accepted {bounds.loss:+g}; in training {losses.recorded:.4f}"
        )
    out.print(str(result.folder), markup=False)
