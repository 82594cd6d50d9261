"""Before a deployment gets traffic: it answers, it reads prompts as they were trained, and it says what the run says.

The prompts are the run's own rows. The endpoint's count of their tokens is compared with the run's rendering.
Its greedy answers are compared with those of the model on this machine where that can run here, else against those that
the run's report holds.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainer.backends.azureml.snapshot import data_names
from trainer.backends.chat_endpoint import as_written
from trainer.backends.chat_route import reply_of
from trainer.backends.http import Say
from trainer.data.conversations import Conversation
from trainer.errors import BackendError, ConfigError, ParityError
from trainer.extras import TO_LOAD_A_MODEL, absent
from trainer.inference.parity import GREEDY_TOKENS
from trainer.inference.probes import request_of, rows_of
from trainer.runs import Run

if TYPE_CHECKING:
    from trainer.backends.chat_endpoint import ChatEndpoint
    from trainer.data.render.rendering import Renderer
    from trainer.inference.client import ChatClient, Reply
    from trainer.inference.replies import Spoken

MAX_PROMPTS = 6
# Other hardware rounds otherwise, and a greedy answer may part where two tokens are about equally likely. A wrong
# model, or one without its adapter, answers hardly any prompt the same.
LEAST_SAME = 0.5


@dataclass(frozen=True, slots=True)
class SmokeQuestion:
    """A trained answer of a row, asked for."""

    place: str
    request: dict[str, Any]
    num_prompt_tokens: int
    expected: str | None  # the run's own greedy answer


@dataclass(frozen=True, slots=True)
class SmokeResult:
    """Endpoint and trained model on the same rows."""

    num_prompts: int
    rows: str
    num_compared: int
    num_same: int
    against: str

    def as_json(self) -> dict[str, Any]:
        return {"prompts": self.num_prompts, "rows": self.rows, "compared": self.num_compared,
                "same": self.num_same, "against": self.against}  # fmt: skip

    def lines(self) -> Iterator[str]:
        """As a person reads it."""
        yield f"{self.num_prompts} prompts of {self.rows} have the tokens that were trained"
        if self.num_compared:
            yield f"{self.num_same} of {self.num_compared} greedy answers are those of {self.against}"
        else:
            yield f"answers were not compared: {self.against}"


def smoke_test(run: Run, client: "ChatEndpoint", mode: str, checkpoint: str | None, say: Say) -> SmokeResult:
    """Ask and compare. Raises: BackendError, where it does not answer; ParityError, where it is another model."""
    say("trying it through its endpoint")
    rows, questions, against = _questions(run, checkpoint)
    same, problems = 0, list[str]()
    for question in questions:
        said, counted = _ask(client, question.request)
        if counted != question.num_prompt_tokens:
            problems.append(
                f"{question.place}: the endpoint counts {counted} tokens in the prompt, "
                f"expected {question.num_prompt_tokens} as in training"
            )
        same += question.expected is not None and _is_same(said, question.expected)
    compared = [question for question in questions if question.expected is not None]
    if compared and same < LEAST_SAME * len(compared):
        problems.append(
            f"{same} of {len(compared)} greedy answers are those of {against}, expected at least half; "
            "the endpoint serves another model"
        )
    if problems:
        raise ParityError(*problems)
    return SmokeResult(len(questions), rows, len(compared), same, against)


def _questions(run: Run, checkpoint: str | None) -> tuple[str, Sequence[SmokeQuestion], str]:
    from trainer.data.render.rendering import Renderer
    from trainer.inference.trained import trained_tokenizer

    rows, renderer = rows_of(run), Renderer(trained_tokenizer(run))
    local = None if checkpoint else _model_here(run)
    record = None if checkpoint or local else _record_of(run)
    questions = list(islice(_asked(rows.conversations, renderer, local, record), MAX_PROMPTS))
    if not questions:
        raise ConfigError(f"{rows.source}: no row can be rendered; bring the run's data back")
    against = "the model on this machine" if local else "the run's report"
    if not any(question.expected is not None for question in questions):
        against = (
            "a checkpoint has no record" if checkpoint else "the model cannot run here, and no report has these rows"
        )
    return rows.source, questions, against


def _asked(
    conversations: Sequence[Conversation], renderer: "Renderer", local: "ChatClient | None", record: "_Record | None"
) -> Iterator[SmokeQuestion]:
    """The first trained answer of each row: its prompt is the same whoever answers."""
    from trainer.data.render.rendering import RenderingError

    for row in conversations:
        index = next((index for index, message in enumerate(row.messages) if message.trained), None)
        if index is None:
            continue
        request = request_of(row, index)
        try:
            adapted = [renderer.template.adapt(message) for message in request["messages"]]
            prompt = renderer.template.encode(adapted, request.get("tools"), prompt=True)
        except RenderingError:
            continue
        expected = _answer_here(local, request) if local else record.answer(row, index) if record else None
        yield SmokeQuestion(row.place, request, len(prompt.ids), expected)


def _answer_here(local: "ChatClient", request: dict[str, Any]) -> str:
    from trainer.inference.client import Sampling
    from trainer.inference.thoughts import Thought

    pieces = local.stream(request["messages"], Sampling(max_tokens=GREEDY_TOKENS), request.get("tools") or ())
    return "".join(piece.text if isinstance(piece, Thought) else str(piece) for piece in pieces).strip()


def _model_here(run: Run) -> "ChatClient | None":
    """The run's model, where it can be loaded on this machine and a quarter of the free memory holds it."""
    if absent(TO_LOAD_A_MODEL):
        return None
    import psutil

    from trainer.inference.local import TunedModel
    from trainer.inference.trained import trained_base
    from trainer.training.prepare import be_quiet

    be_quiet()
    try:
        base = trained_base(run)
    except ConfigError:
        return None
    num_bytes = 4 * sum(parameter.numel() for parameter in base.skeleton.parameters())
    if base.from_hub or num_bytes > psutil.virtual_memory().available / 4:
        return None
    return TunedModel(run).tuned


@dataclass(frozen=True, slots=True)
class _Record:
    """The run's own greedy answers, as its comparison wrote them down, here or on a node."""

    answers: Mapping[tuple[str, int], str]  # by the row's place and the message
    names: Mapping[str, str]  # of the files on a node

    def answer(self, row: Conversation, message: int) -> str | None:
        """Thought and text of the trained model for a message of the row; None without that, or with a call."""
        places = (row.place, f"{self.names.get(row.file)}:{row.line}")
        return next((self.answers[place, message] for place in places if (place, message) in self.answers), None)


def _record_of(run: Run) -> _Record:
    found = {}
    for row in run.comparison().get("rows", ()):
        for answer in row.get("answers", ()):
            tuned = answer.get("tuned", {})
            said = f"{tuned.get('reasoning_content', '')}{tuned.get('text', '')}"
            if said and not tuned.get("calls"):
                found[str(row["place"]), int(answer["message"])] = said
    names = data_names(run.config())
    return _Record(found, {str(Path(path)): name for path, name in names.items()})


def _ask(client: "ChatEndpoint", request: dict[str, Any]) -> tuple[str, int]:
    """Thought, text and calls of the greedy answer, and the tokens that its prompt had. Raises: BackendError."""
    tools = request.get("tools")
    body = request | {"temperature": 0, "max_tokens": GREEDY_TOKENS} | (as_written(tools) if client.reader else {})
    answer = client.ask(body)
    said: Reply | Spoken = reply_of(answer, client.name)
    try:
        num_tokens = int(answer["usage"]["prompt_tokens"])
    except (KeyError, TypeError, ValueError):
        raise BackendError(f"{client.name}: counts no tokens of the prompt, expected usage.prompt_tokens") from None
    if client.reader is not None:
        reader = client.reader()
        said = reader.read(said.text, reader.prompt(request["messages"], tools))
    return "".join([said.thought, said.text, *map(str, said.calls)]).strip(), num_tokens


def _is_same(said: str, expected: str) -> bool:
    """Either may have been cut off earlier."""
    short, long = sorted((said, expected), key=len)
    return bool(short) == bool(long) and long.startswith(short)
