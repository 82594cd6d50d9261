"""`trainer chat`: talk to a run's model, to its base, or to both side by side."""

import contextlib
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from trainer.cli.console import Debug, Format, Output, Root, RunName, clean, command, err, loading, out, say
from trainer.errors import ConfigError
from trainer.runs import Run, find_run

if TYPE_CHECKING:
    from rich.text import Text

    from trainer.inference.client import ChatClient
    from trainer.inference.dialogue import Dialogue, Shown

THOUGHT = "dim italic"  # how a thought is printed


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
    endpoint: Annotated[
        str | None, typer.Option(metavar="NAME", help="Talk through what trainer deploy has made, or 'any'.")
    ] = None,
    root: Root = Path("runs"),
    output: Output = Format.text,
    debug: Debug = False,
) -> None:
    """Talk to a run's model, with the system prompt it was trained with.

    Without a question it is a conversation: /base shows the base model's answers too, /save keeps a turn as a row to
    train on, /help lists all commands, and /quit or Ctrl-D ends it.
    """
    found = find_run(run, root)
    asked = [*(questions or []), *_read_questions(questions_file)]
    if base and compare:
        raise ConfigError("--base: is given with --compare, which answers with the base too, expected one; remove one")
    if output is Format.json and not asked:
        raise ConfigError("--format json: is given without a question, expected one; a conversation is for people")

    from trainer.inference.client import Sampling
    from trainer.inference.dialogue import Dialogue

    tuned, before = _models(found, endpoint)
    manifest = found.manifest()
    prompt = manifest.system_prompt if system is None else system
    dialogue = Dialogue(
        before if base else tuned,
        None if base else before,
        Sampling(max_tokens=max_tokens, temperature=temperature),
        prompt,
        manifest.tools,
        with_base=compare,
        save_to=Path(f"{found.name}-saved.jsonl"),
    )
    if output is Format.json:
        _print_document(found, dialogue, asked, is_base=base)
    elif asked and compare:
        _answer_side_by_side(dialogue, asked)
    elif asked:
        for question in asked:
            _print_answer(_reply(dialogue.model, dialogue, question))
    else:
        _converse(dialogue)


def _print_document(run: Run, dialogue: "Dialogue", questions: list[str], is_base: bool) -> None:
    from trainer.cli.documents.use import Chat, Exchange

    answers = []
    for question in questions:
        said = _reply(dialogue.model, dialogue, question)
        if is_base:
            answers.append(
                Exchange(question=question, base=said.text, tuned=None, base_thought=said.thought, tuned_thought=None)
            )
            continue
        before = _reply(dialogue.base, dialogue, question) if dialogue.base and dialogue.with_base else None
        answers.append(
            Exchange(
                question=question,
                base=before and before.text,
                tuned=said.text,
                base_thought=before and before.thought,
                tuned_thought=said.thought,
            )
        )
    Chat(run=run.name, system=dialogue.system or None, answers=answers).print()


def _models(run: Run, endpoint: str | None) -> "tuple[ChatClient, ChatClient]":
    """The tuned model and its base: deployed, or loaded here."""
    from trainer.backends.choose import choose, choose_service

    if endpoint is not None or not choose(run.backend, asks=False).keeps_adapter:
        from trainer.runs.ledger import Ledger

        deployed = Ledger(run.path).find("deployment")
        service = choose_service(deployed.thing.backend if deployed else run.backend)
        if service is None:
            raise ConfigError(
                f"run {run.name!r}: has nothing deployed, expected an endpoint; make one: trainer deploy {run.path}"
            )
        name = None if endpoint == "any" else endpoint
        return service.client(run, name, base=False), service.client(run, name, base=True)

    from trainer.inference.trained import trained_adapter

    trained_adapter(run)
    with loading():
        from trainer.inference.local import TunedModel
        from trainer.training.prepare import be_quiet

        be_quiet()
        model = TunedModel(run)
    return model.tuned, model.base


def _read_questions(file: Path | None) -> list[str]:
    if file is None:
        return []
    try:
        return [line.strip() for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file}: cannot be read: {error}") from None


@dataclass(frozen=True, slots=True)
class _Answer:
    """A model's answer to a question without a history; a tool call stands on a line of its own."""

    text: str
    thought: str | None


def _reply(client: "ChatClient", dialogue: "Dialogue", question: str) -> _Answer:
    from trainer.inference.thoughts import Thought

    head = [{"role": "system", "content": dialogue.system}] if dialogue.system else []
    messages = [*head, {"role": "user", "content": question}]
    pieces = list(client.stream(messages, dialogue.sampling, dialogue.tools))
    thought = "".join(piece.text for piece in pieces if isinstance(piece, Thought)).strip()
    said = [piece if isinstance(piece, str) else f"\n{piece}" for piece in pieces if not isinstance(piece, Thought)]
    return _Answer("".join(said).strip(), thought or None)


def _print_answer(answer: _Answer) -> None:
    """The thought goes where notices go, so that standard output holds the answer alone."""
    if answer.thought:
        err.print(clean(answer.thought), style=THOUGHT, markup=False, highlight=False, soft_wrap=True)
    out.print(clean(answer.text), markup=False)


def _answer_side_by_side(dialogue: "Dialogue", questions: list[str]) -> None:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    assert dialogue.base is not None
    table = Table(box=box.SIMPLE_HEAD, show_lines=True)
    for title, style in (("question", "bold"), ("base", "dim"), ("tuned", "green")):
        table.add_column(title, style=style, ratio=1)
    for question in questions:
        answers = [_cell(_reply(client, dialogue, question)) for client in (dialogue.base, dialogue.model)]
        table.add_row(Text(clean(question)), *answers)
    out.print(table)


def _cell(answer: _Answer) -> "Text":
    from rich.text import Text

    if not answer.thought:
        return Text(clean(answer.text))
    return Text.assemble((clean(answer.thought), THOUGHT), "\n\n", clean(answer.text))


def _converse(dialogue: "Dialogue") -> None:
    """Read lines until the end of input; Ctrl-C takes back the question that is being answered."""
    if err.is_terminal:
        with contextlib.suppress(ImportError):
            import readline  # noqa: F401  # input() then edits lines and remembers them
    if dialogue.system:
        say(f"system: {dialogue.system}")
    if dialogue.tools:
        say(f"tools: {', '.join(tool['function']['name'] for tool in dialogue.tools)}")
    say("/help for all commands, /quit to leave")
    while not dialogue.ended:
        try:
            line = input("\n> " if err.is_terminal else "")
        except EOFError:
            return
        except UnicodeDecodeError:
            say("the line is not UTF-8 text")
            continue
        shown = dialogue.submit(line)
        try:
            _show(shown)
        except KeyboardInterrupt:
            out.print()
            say("stopped; the question is taken back")
        finally:
            shown.close()


def _show(shown: "Generator[Shown]") -> None:
    """Print what is said as it comes, ending in a new line."""
    from trainer.inference.dialogue import Notice, Speaker
    from trainer.inference.thoughts import Thought

    open_kind: type | None = None  # of a line that has begun
    for item in shown:
        kind = type(item) if isinstance(item, str | Thought) else None
        if open_kind is not None and kind is not open_kind:
            out.print()
        open_kind = kind
        match item:
            case Notice(text):
                say(text)
            case Speaker(name):
                out.print(clean(name), style="bold", markup=False)
            case Thought(text):
                out.print(clean(text), end="", style=THOUGHT, markup=False, highlight=False)
            case str():
                out.print(clean(item), end="", markup=False)
            case _:
                out.print(clean(str(item)), style="cyan", markup=False)
    if open_kind is not None:
        out.print()
