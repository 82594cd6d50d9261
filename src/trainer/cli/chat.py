"""`trainer chat`: talk to a run's model, to its base, or to both side by side."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from trainer.cli.console import Debug, Root, RunName, clean, command, err, out, say
from trainer.errors import ConfigError
from trainer.runs import find_run

if TYPE_CHECKING:
    from trainer.inference.client import ChatClient, Sampling
    from trainer.inference.local import LocalClient


@command
def chat(
    run: RunName,
    questions: Annotated[list[str] | None, typer.Argument(metavar="QUESTION", help="Ask these and leave.")] = None,
    questions_file: Annotated[
        Path | None, typer.Option("--questions", metavar="FILE", help="Ask the lines of a text file and leave.")
    ] = None,
    base: Annotated[bool, typer.Option("--base", help="Talk to the model before fine-tuning.")] = False,
    compare: Annotated[bool, typer.Option("--compare", help="Answer with the base and the tuned model.")] = False,
    system: Annotated[
        str | None, typer.Option(help="Another system prompt than that of the training rows; '' for none.")
    ] = None,
    max_tokens: Annotated[int, typer.Option(min=1, help="The longest answer, in tokens.")] = 256,
    temperature: Annotated[float, typer.Option(min=0, max=2, help="0 always takes the most likely token.")] = 0.0,
    root: Root = Path("runs"),
    debug: Debug = False,
) -> None:
    """Talk to a run's model, with the system prompt it was trained with.

    Without a question it is a conversation: /reset forgets it, /quit or Ctrl-D ends it.
    """
    found = find_run(run, root)
    asked = [*(questions or []), *_read_questions(questions_file)]

    from trainer.backends import local
    from trainer.inference.client import Sampling
    from trainer.inference.local import TunedModel

    local.be_quiet()
    model = TunedModel(found)
    prompt = found.manifest().get("system_prompt") if system is None else system
    sampling = Sampling(max_tokens=max_tokens, temperature=temperature)
    clients = [model.base, model.tuned] if compare else [model.base if base else model.tuned]
    if asked and compare:
        _answer_side_by_side(clients, asked, prompt, sampling)
    elif asked:
        for question in asked:
            out.print(clean(clients[0].answer(_conversation(prompt, question), sampling)), markup=False)
    else:
        _converse(clients, prompt, sampling)


def _read_questions(file: Path | None) -> list[str]:
    if file is None:
        return []
    try:
        return [line.strip() for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file}: cannot be read: {error}") from None


def _conversation(system: str | None, question: str) -> list[dict[str, str]]:
    head = [{"role": "system", "content": system}] if system else []
    return [*head, {"role": "user", "content": question}]


def _answer_side_by_side(
    clients: "Sequence[LocalClient]", questions: list[str], system: str | None, sampling: "Sampling"
) -> None:
    from rich import box
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, show_lines=True)
    for title, style in (("question", "bold"), ("base", "dim"), ("tuned", "green")):
        table.add_column(title, style=style, ratio=1)
    for question in questions:
        answers = [client.answer(_conversation(system, question), sampling) for client in clients]
        table.add_row(*(Text(clean(cell)) for cell in (question, *answers)))
    out.print(table)


def _converse(clients: "Sequence[ChatClient]", system: str | None, sampling: "Sampling") -> None:
    """Read turns until the end of input; each client keeps its own history."""
    histories = [_conversation(system, "")[:-1] for _ in clients]
    if system:
        say(f"system: {system}")
    say("/reset to start over, /quit to leave")
    while True:
        try:
            question = input("\n> " if err.is_terminal else "").strip()
        except EOFError:
            return
        match question:
            case "":
                continue
            case "/quit" | "/exit":
                return
            case "/reset":
                histories = [_conversation(system, "")[:-1] for _ in clients]
                say("forgotten")
                continue
        for client, history in zip(clients, histories, strict=True):
            history.append({"role": "user", "content": question})
            if len(clients) > 1:
                out.print(f"[bold]{clean(client.name)}[/]")
            history.append({"role": "assistant", "content": _stream(client, history, sampling)})


def _stream(client: "ChatClient", history: list[dict[str, str]], sampling: "Sampling") -> str:
    pieces = []
    for piece in client.stream(history, sampling):
        pieces.append(piece)
        out.print(clean(piece), end="", markup=False)
    out.print()
    return "".join(pieces).strip()
