"""The page about data files, and the charts that it shares with the studio's data pages."""

from collections.abc import Iterator, Mapping
from typing import Any

from trainer import __version__
from trainer.data.files.languages import SURE, UNDETERMINED, name_of
from trainer.inference.report.histograms import Histogram, ShareChart, histogram_of, shares_of

MEASURES = (("characters", "Characters a row"), ("turns", "Turns a row"))
TOKEN_MEASURES = (("tokens", "Tokens a row"), ("supervised", "Supervised tokens a row"))
COUNT_ONLY = (
    "This counts tokens through the model. A step also takes time for attention, which grows with what a token sees, "
    "for the loss of the supervised tokens, and for the optimizer; so the time saved is another share."
)


def histograms(side: Mapping[str, Any]) -> list[Histogram]:
    """The charts of one side of `trainer data stats --format json`, those in tokens first."""
    tokens = side["tokens"]
    charts = [histogram_of(title, tokens[name]) for name, title in TOKEN_MEASURES] if tokens else []
    return charts + [histogram_of(title, side[name]) for name, title in MEASURES]


def share_charts(side: Mapping[str, Any]) -> list[ShareChart]:
    """Supervised and shared tokens, tokens of an epoch by way of computing them, roles and languages."""
    return [*_token_shares(side["tokens"]), shares_of("Messages by role", side["roles"], "messages"), *_languages(side)]


def _token_shares(tokens: Mapping[str, Any] | None) -> Iterator[ShareChart]:
    if tokens is None:
        return
    total, supervised = tokens["tokens"]["total"], tokens["supervised"]["total"]
    parts = {"supervised": supervised, "only read": total - supervised}
    yield shares_of("Supervised tokens", parts, "tokens", "Only supervised tokens enter the loss.")
    shared = {"of their own": tokens["unique"], "shared prefix": total - tokens["unique"]}
    note = "Tokens that repeat how another row of the file begins, wherever it is in the file."
    yield shares_of("Shared prefixes", shared, "tokens", note)
    if steps := tokens["steps"]:
        ways = {"padded": steps["padded"], "unshared": steps["unshared"], "computed": steps["computed"]}
        drawn = "" if steps["steps"] == steps["counted_steps"] else f" (of {steps['steps']:,} in an epoch)"
        yield shares_of(
            "Tokens that training computes",
            ways,
            "tokens",
            f"Steps of {steps['rows_per_step']:,} rows, {steps['counted_steps']:,} counted{drawn}, in packs of at most "
            f"{steps['token_budget']:,} tokens. Sharing leaves 1 of {steps['fewer_than_unshared']:.2f} tokens without "
            f"padding, and 1 of {steps['fewer_than_padded']:.2f} with it. {COUNT_ONLY}",
        )


def _languages(side: Mapping[str, Any]) -> Iterator[ShareChart]:
    if found := side["languages"]:
        unsure = found["by_code"].get(UNDETERMINED, 0)
        looked = f"{found['rows']:,} of {side['rows'] - side['rows_with_errors']:,} rows were looked at. "
        sure = (
            "" if found["confidence"] is None else f"The median confidence of the others is {found['confidence']:.2f}. "
        )
        yield shares_of(
            "Languages",
            {name_of(code): number for code, number in found["by_code"].items()},
            "rows",
            f"{looked}py3langid was less than {SURE:.0%} sure of {unsure:,}. {sure}"
            "It judges letters: short rows, code and mixed languages mislead it.",
        )


def data_page(files: str, statistics: Mapping[str, Any]) -> str:
    """The page about files, of their `trainer data stats --format json`. Every text of the data is escaped."""
    from trainer.inference.report.page import render_page

    sides = [("Rows to train on", statistics["train"])]
    if statistics["validation"] is not None:
        sides.append(("Rows held out", statistics["validation"]))
    return render_page(
        "data",
        f"{files}: data report",
        files=files,
        leaks=None if statistics["validation"] is None else statistics["leaks"],
        sides=[
            {
                "title": title,
                "tiles": list(_tiles(side)),
                "histograms": histograms(side),
                "shares": share_charts(side),
                "facts": list(facts(side)),
            }
            for title, side in sides
        ],
        version=__version__,
    )


def _tiles(side: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    yield "Rows", f"{side['rows']:,}"
    if tokens := side["tokens"]:
        yield "Tokens an epoch", f"{tokens['tokens']['total']:,}"
        yield "Supervised", f"{tokens['supervised_share']:.1%}"
        yield "Shared prefixes", f"{tokens['shared_prefix_share']:.1%}"
        if steps := tokens["steps"]:
            yield "Fewer tokens by sharing", f"{steps['fewer_than_unshared']:.2f}x"
    yield "Duplicates", f"{side['duplicates'] + side['near_duplicates']:,}"


def facts(side: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Contents of the rows, each as a name and a text."""
    if side["rows_with_errors"]:
        yield "Errors", f"in {side['rows_with_errors']:,} rows, which are left out of all other numbers"
    yield "Answers", f"{side['answers']:,}, {side['untrained_answers']:,} of them with weight 0"
    without = side["rows_without_system_prompt"]
    yield "System prompts", f"{side['system_prompts']:,} different, {without:,} rows without one"
    yield "Tools", f"in {side['rows_with_tools']:,} rows, {side['tool_calls']:,} calls"
    yield "Duplicates", f"{side['duplicates']:,}, and {side['near_duplicates']:,} more but for white space"
    yield "Same prompt", f"{side['same_prompts']:,} rows ask what another asks, with another answer"
    if side["languages"] is None:
        yield "Languages", "not detected: py3langid is not installed (the extra workshop brings it)"
    if tokens := side["tokens"]:
        yield "Too long", f"{len(tokens['over_length']):,} rows over {tokens['max_length']:,} tokens"
        if tokens["refused"]:
            yield "Refused", f"{len(tokens['refused']):,} rows; the first: {tokens['refused'][0]}"
    else:
        yield "Tokens", "not counted: a config names the model that counts them (--config CONFIG)"
