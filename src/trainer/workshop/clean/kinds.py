"""Kinds of faults that `trainer data clean` knows: their codes, reasons and remedies, and the page made of them."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from trainer.errors import ConfigError, similar

Remedy = Literal["edit", "remove", "leave"]


@dataclass(frozen=True, slots=True)
class FaultKind:
    """`remedy` is that of --fix: the text is edited, the row is removed, or a person decides."""

    code: str
    title: str
    explanation: str
    remedy: Remedy
    fix: str
    example: str


KINDS = {
    kind.code: kind
    for kind in (
        FaultKind(
            "MOJIBAKE",
            "Text that was decoded with the wrong encoding",
            "UTF-8 read as another encoding turns é into Ã©, and the model learns to write that. ftfy restores what can "
            "be restored for certain. Looked for in every message.",
            "edit",
            "restored",
            "rows.jsonl:3: MOJIBAKE: messages[2].content holds 'CafÃ© au lait'; restored",
        ),
        FaultKind(
            "LOST_CHARACTER",
            "A replacement character (U+FFFD) where a character was lost",
            "An earlier step could not decode a byte. Nobody but the source knows which character stood there.",
            "leave",
            "export the text again as UTF-8",
            "rows.jsonl:3: LOST_CHARACTER: messages[2].content holds 'na\\ufffdve'; export the text again as UTF-8",
        ),
        FaultKind(
            "CONTROL",
            "Control characters and terminal sequences",
            "Colors of a terminal, backspaces and other characters below 32 were copied along. Tabs and line ends stay.",
            "edit",
            "cut out",
            "rows.jsonl:3: CONTROL: messages[2].content holds '\\x1b[31mred'; cut out",
        ),
        FaultKind(
            "INVISIBLE",
            "Characters that nobody sees",
            "Zero-width spaces, byte order marks, soft hyphens and stray direction marks change the tokens of a word. "
            "Joiners within emoji, and marks in scripts that need them, stay.",
            "edit",
            "cut out",
            "rows.jsonl:3: INVISIBLE: messages[2].content holds 'brake\\u200b pad'; cut out",
        ),
        FaultKind(
            "ENTITY",
            "HTML entities in plain text",
            "`&amp;` and the like come from a web page. Texts with tags, code or talk of HTML keep theirs. Looked for "
            "in questions and trained answers.",
            "edit",
            "decoded",
            "rows.jsonl:3: ENTITY: messages[2].content holds 'nuts &amp; bolts'; decoded",
        ),
        FaultKind(
            "FENCE",
            "A code fence around a whole answer, or one that never ends",
            "The answer stands within ``` of plain text, Markdown or valid JSON, or one fence is left over at an end. "
            "Fenced code of a named language stays.",
            "edit",
            "cut off",
            "rows.jsonl:3: FENCE: messages[2].content begins with '```markdown'; cut off",
        ),
        FaultKind(
            "NEXT_QUESTION",
            "The next question at the end of an answer",
            "A text of many questions and answers was split at the wrong place. A question that is answered stays.",
            "edit",
            "cut off",
            "rows.jsonl:3: NEXT_QUESTION: messages[2].content ends with '**Q: How does it work?**'; cut off",
        ),
        FaultKind(
            "LABEL",
            "A label such as `Answer:` before the text",
            "The chat template says already who speaks. Looked for in questions and trained answers; `A:` stays where "
            "the question offers B.",
            "edit",
            "cut off",
            "rows.jsonl:3: LABEL: messages[2].content begins with '**Answer:**'; cut off",
        ),
        FaultKind(
            "MARKUP",
            "Left-over Markdown at an end of the text",
            "Asterisks that open or close nothing, empty headings, rules and markers of a chat template. Looked for in "
            "questions and trained answers.",
            "edit",
            "cut off",
            "rows.jsonl:3: MARKUP: messages[2].content ends with '**'; cut off",
        ),
        FaultKind(
            "SYSTEM_VARIANT",
            "A system prompt in several spellings",
            "Prompts that differ in white space, letter case or punctuation only are meant to be one. Serving sends one.",
            "edit",
            "replaced by the most frequent spelling",
            "rows.jsonl:3: SYSTEM_VARIANT: the system prompt 'you are Spokewise' is 'You are Spokewise.' in 40 rows; "
            "replaced by the most frequent spelling",
        ),
        FaultKind(
            "EMPTY",
            "An answer or a question without content",
            "Only punctuation, only a label, or a placeholder of another tool such as NaN.",
            "remove",
            "the row is removed",
            "rows.jsonl:3: EMPTY: messages[2].content is '...'; the row is removed",
        ),
        FaultKind(
            "LEAK",
            "A row that says the same as a held-out row",
            "What is trained on shows nothing about new questions. Found as NEAR_DUPLICATE is; the file of --validation "
            "stays as it is.",
            "remove",
            "the row is removed",
            "rows.jsonl:3: LEAK: the row resembles held.jsonl:7 (0.94); the row is removed",
        ),
        FaultKind(
            "DUPLICATE",
            "A row that repeats an earlier one",
            "Equal but for white space once the edits above are made. The first one stays.",
            "remove",
            "the row is removed",
            "rows.jsonl:3: DUPLICATE: the row says the same as line 1; the row is removed",
        ),
        FaultKind(
            "NEAR_DUPLICATE",
            "A row that repeats an earlier one in nearly the same words",
            "Prompt and answer both resemble those of an earlier row: of their runs of six bytes, those of templates "
            "left out, at least the share --similarity is common (Jaccard). System prompt, tools, weights, numbers, "
            "operators and negations are equal. The first one stays.",
            "remove",
            "the row is removed",
            "rows.jsonl:3: NEAR_DUPLICATE: the row resembles line 1 (0.91); the row is removed",
        ),
        FaultKind(
            "CONFLICT",
            "A prompt with different answers",
            "Letter case and punctuation aside, several rows ask the same and answer differently. Of preference rows: "
            "one prefers what another rejects.",
            "leave",
            "keep the right one, or vary the prompt",
            "rows.jsonl:3: CONFLICT: the row asks what line 1 asks, with another answer; keep the right one, or vary "
            "the prompt",
        ),
        FaultKind(
            "REFUSAL",
            "An answer that only refuses",
            "A short answer that begins as assistants decline (\"As an AI language model …\"), in fourteen languages. "
            "Some data sets teach that on purpose.",
            "leave",
            "answer the question, or remove the row",
            "rows.jsonl:3: REFUSAL: messages[2].content begins with 'As an AI language model'; answer the question, or "
            "remove the row",
        ),
        FaultKind(
            "LONG",
            "A row over the limit",
            "Longer than --max-length: characters, or tokens with --base. Without a limit of your own it is 32,768 "
            "characters, or the longest row that the base takes.",
            "leave",
            "shorten or split it",
            "rows.jsonl:3: LONG: the row has 40,210 characters, expected at most 32,768; shorten or split it",
        ),
        FaultKind(
            "SECRET",
            "A key, token or password",
            "Shapes of keys with their prefixes, entropy where the shape alone is weak. A model can repeat them.",
            "leave",
            "replace it by an invented one, and revoke it",
            "rows.jsonl:3: SECRET: messages[2].content holds what looks like an AWS access key ('AKIA…'); replace it by "
            "an invented one, and revoke it",
        ),
        FaultKind(
            "PERSONAL_DATA",
            "E-mail addresses, phone, card and account numbers",
            "Checksums are verified where there are some (Luhn, IBAN). Names and postal addresses are not looked for.",
            "leave",
            "replace it by an invented one",
            "rows.jsonl:3: PERSONAL_DATA: messages[1].content holds what looks like an IBAN ('DE89…'); replace it by an "
            "invented one",
        ),
    )
}  # fmt: skip

REMEDIES = {"edit": "the text is edited", "remove": "the row is removed", "leave": "left to a person"}
_HEADER = """# Kinds of faults that `trainer data clean` finds

Made from the code by `trainer data clean --kinds`. Each of them is legal: [data_rules.md](data_rules.md) has what is not. A
finding reads `file:line: KIND: where what was found; what --fix does, or what to do`. `--only` and `--skip` choose the
kinds, `--remove KIND` removes rows of a kind that is otherwise left to a person.

| kind | with --fix | in short |
|---|---|---|"""


@dataclass(frozen=True, slots=True)
class KindChoice:
    """The kinds to look for, and those of them whose rows go."""

    wanted: frozenset[str]
    removed: frozenset[str]

    def wants(self, *codes: str) -> bool:
        return not self.wanted.isdisjoint(codes)


def choose(only: Sequence[str] = (), skip: Sequence[str] = (), remove: Sequence[str] = ()) -> KindChoice:
    """Kinds by the words of the command line, `near-duplicate` being NEAR_DUPLICATE. Raises: ConfigError."""
    problems: list[str] = []
    first = _codes("--only", only, problems)
    skipped, removed = _codes("--skip", skip, problems), _codes("--remove", remove, problems)
    problems += [
        f"--remove: {code} is a kind whose text --fix edits, expected one that is left to a person; leave it out"
        for code in removed
        if KINDS[code].remedy == "edit"
    ]
    wanted = frozenset(first or KINDS) - frozenset(skipped)
    problems += [f"--remove: {code} is not looked for, expected a kind that is; look for it too"
                 for code in removed if code not in wanted]  # fmt: skip
    if not problems and not wanted:
        problems = ["--skip: leaves no kind to look for, expected one or more; skip fewer"]
    if problems:
        raise ConfigError(*problems)
    return KindChoice(wanted, frozenset(code for code in wanted if KINDS[code].remedy == "remove" or code in removed))


def _codes(option: str, words: Iterable[str], problems: list[str]) -> list[str]:
    found = []
    for word in (part.strip() for words_of_one in words for part in words_of_one.split(",")):
        code = word.upper().replace("-", "_")
        if code in KINDS:
            found.append(code)
        else:
            problems.append(
                f"{option}: {word!r} is no kind of fault{similar(code, KINDS)}, expected one of "
                f"{', '.join(KINDS)}; look at trainer data clean --kinds"
            )
    return found


def markdown() -> str:
    """Each kind with its remedy, its reason and an example."""
    table = [
        f"| [{kind.code}](#{kind.code.lower()}) | {REMEDIES[kind.remedy]} | {kind.title} |" for kind in KINDS.values()
    ]
    sections = [
        f"## {kind.code}\n\n{kind.explanation}\n\nWith --fix: {REMEDIES[kind.remedy]}.\n\n```text\n{kind.example}\n```\n"
        for kind in KINDS.values()
    ]
    return "\n".join([_HEADER, *table, "", *sections])
