"""Left-over labels and Markdown at the ends of a text, cut off: each function gives what is left, or the same text."""

import json
import re

from trainer.data.rules.texts import TEMPLATE_MARKS

_ANSWER_WORDS = (
    "answer|response|reply|assistant|output|bot|ai|chatbot|completion|antwort|réponse|reponse|respuesta|risposta|"
    "resposta|antwoord|odpowiedź|ответ|"
    "回答|答案|答|応答"
)
_QUESTION_WORDS = (
    "question|user|human|instruction|prompt|query|frage|pregunta|domanda|pergunta|vraag|pytanie|вопрос|"
    "问题|問題|问|質問"
)


def _label(words: str, letter: str) -> re.Pattern[str]:
    """A label at the start of a text: bold, a heading or plain, with its colon. A plain `A1:` may be a table's cell."""
    plain, named = rf"(?i:{words})|{letter}", rf"(?i:{words})|{letter}[0-9]{{0,3}}"
    return re.compile(
        rf"\s*(?:\*\*\s?(?:{named})\s?[:：]\s?\*\*|\*\*(?:{named})\*\*\s?[:：]|"
        rf"\#{{1,6}} (?:{named})(?:\s?[:：]|[ \t]*\n)|(?:{plain}) ?[:：])\s*"
    )


_ANSWER_LABEL, _QUESTION_LABEL = _label(_ANSWER_WORDS, "A"), _label(_QUESTION_WORDS, "Q")
_LETTER = re.compile(r"[\s*#]*A ?[:：]")
_OFFERED = re.compile(r"(?:^|[\s(])B ?[.:)]", re.MULTILINE)
_NEXT = re.compile(
    r"^[ \t]*+(?:\*\*\s?|\#{1,6} )?(?:Q[0-9]{0,3}|Question(?: [0-9]{1,3})?|User|Human)(?:\*\*)?\s?:", re.MULTILINE
)
_ANSWERED = re.compile(r"^\W{0,8}(?:A[0-9]{0,3}|(?i:answer|assistant|response))(?:\*\*)?\s?:", re.MULTILINE)
_PLAIN = {"text", "txt", "plain", "plaintext", "markdown", "md"}
_FENCE_LINE = re.compile(r"^[ \t]*+```", re.MULTILINE)
_OPENING = re.compile(r"```[ \t]*([\w+-]*)[ \t]*")
_RULE = re.compile(r"\#{1,6}|-{3,}|\*{3,}|_{3,}")
_CODE = re.compile(r"[{}()=<>|\\$]|;[ \t]*$|^(?: {4}|\t)", re.MULTILINE)
_FRONT_MATTER = re.compile(r"---[ \t]*\n(?:\w[\w-]*:.*\n|[ \t].*\n|- .*\n)+---[ \t]*(?:\n|$)")
_HASHES_AT_END = re.compile(r"[ \t]\#{2,6}$")


def cut_fence(text: str) -> str:
    """The inside of a fence around all of the text; else the text without a fence that stands alone at an end."""
    if "```" not in text:
        return text
    lines = text.strip().split("\n")
    num_fences = len(_FENCE_LINE.findall(text))
    opening, closes = _OPENING.fullmatch(lines[0]), lines[-1].strip() == "```"
    if num_fences == 2 and opening and closes:
        inner, language = "\n".join(lines[1:-1]), opening[1].lower()
        return inner if _is_no_code(inner, language) else text
    if num_fences != 1 or len(lines) == 1:
        return text
    return "\n".join(lines[:-1]).rstrip() if closes else "\n".join(lines[1:]).lstrip() if opening else text


def _is_no_code(inner: str, language: str) -> bool:
    """True of what a fence of this language need not show as code; one that names none may hold some."""
    if language == "json":
        return _is_json(inner)
    return language in _PLAIN or (not language and not _CODE.search(inner))


def _is_json(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict | list)
    except (ValueError, RecursionError):
        return False


def cut_next_question(text: str) -> str:
    """The text before a labelled question in its last paragraph that nothing answers."""
    *_, found = (None, *_NEXT.finditer(text))
    if found is None or "\n\n" in text[found.end() :].strip() or _ANSWERED.search(text, found.end()):
        return text
    return _without_last_rules(text[: found.start()].rstrip()) or text


def _without_last_rules(text: str) -> str:
    """The text without lines at its end that hold a rule, or a heading of nothing."""
    while _RULE.fullmatch(text[text.rfind("\n") + 1 :].strip()):
        text = text[: max(text.rfind("\n"), 0)].rstrip()
    return text


def cut_answer_label(text: str, asked: str) -> str:
    """The text without a label at its start, but for `A:` where `asked` offers B too."""
    if _LETTER.match(text) and _OFFERED.search(asked):
        return text
    return _without_label(_ANSWER_LABEL, text)


def cut_question_label(text: str) -> str:
    """The text without a label at its start."""
    return _without_label(_QUESTION_LABEL, text)


def _without_label(label: re.Pattern[str], text: str) -> str:
    return text[found.end() :] if (found := label.match(text)) else text


def cut_markup(text: str) -> str:
    """The text without marks of chat templates, empty headings, rules and asterisks of no bold text at its ends."""
    left = text.strip()
    if left.startswith(TEMPLATE_MARKS) or left.endswith(TEMPLATE_MARKS):
        for mark in TEMPLATE_MARKS:
            left = left.removeprefix(mark).removesuffix(mark)
    first, _, rest = left.partition("\n")
    if _RULE.fullmatch(first.strip()) and not _FRONT_MATTER.match(left):
        left = rest.lstrip()
    left = _cut_asterisks(_HASHES_AT_END.sub("", _without_last_rules(left)).strip())
    return text if left == text.strip() else left


def _cut_asterisks(text: str) -> str:
    """Odd or loose `**`, as of bold text that was cut in two; that of code and of real bold text stays."""
    if "**" not in text or "`" in text:
        return text
    if text.startswith("**") and text[2:3].isspace():
        text = text[2:].lstrip()
    if text.endswith("**") and text[-3:-2].isspace():
        text = text[:-2].rstrip()
    if text.count("**") % 2:
        if text.endswith("**"):
            return text[:-2].rstrip()
        if text.startswith("**"):
            return text[2:].lstrip()
    return text
