"""What the YAML parser found, as somebody who has never written a parser would say it, and what to do."""

import re

import yaml

MERGE = (
    "a merge that git could not finish, expected yaml; keep one of the two versions, and "
    "remove the lines of <<<<<<<, ======= and >>>>>>>"
)
TAB = "a tab, expected spaces; replace it by two spaces"
# By what the parser's own words hold; the first that fits.
_WORDS = (
    ("'\\t'", TAB),
    (
        "expected <block end>",
        "a line that is indented unlike those beside it; give all settings of a section the same spaces",
    ),
    (
        "could not find expected ':'",
        "a line without a colon, expected name: value; add it, or indent the line like the text that it goes on",
    ),
    ("<stream end>", "it ends inside of a bracket or quote; close it"),
    ("unexpected end of stream", "it ends inside of a bracket or quote; close it"),
    ("expected ',' or '", "a bracket that is not closed before this place, or a comma that is missing; add it"),
    ("unknown escape character", "a backslash in double quotes; take single quotes, or / in a path"),
    ("but found another document", "a second document, expected one; remove the line ---"),
    (
        "a constructor for the tag",
        "a value that begins with !, expected a plain one; put it in quotes where it is text",
    ),
    ("undefined alias", "a value that begins with *, expected a plain one; put it in quotes"),
    ("that cannot start any token", "a character that no value can begin with; put the value in quotes"),
    (
        "expected alphabetic or numeric character",
        "a value that begins with *, & or %, expected a plain one; put it in quotes",
    ),
)
_SPACE = re.compile(r"[ \t]*(?P<other>[^\S \t\r\n])")


def unreadable(text: str) -> tuple[int, str] | None:
    """The line that cannot be part of any config, with what it is: a mark of git, or a space that is none to YAML."""
    for number, line in enumerate(text.split("\n"), 1):
        if line.startswith(("<<<<<<< ", ">>>>>>> ")):
            return number, MERGE
        if (found := _SPACE.match(line)) and line.strip():
            return number, f"the space {found['other']!r} at its beginning, expected plain ones; type them anew"
    return None


def in_words(error: yaml.MarkedYAMLError, text: str) -> str:
    """What is wrong and what to do."""
    problem, lines = str(error.problem or error.context), text.split("\n")
    if any(line.rstrip("\r") == "=======" for line in lines):
        return MERGE
    if "mapping values are not allowed" in problem and error.problem_mark is not None:
        return _second_colon(lines, error.problem_mark.line)
    if _is_json_lines(text) and "<document start>" in problem:
        return "one JSON object a line, as in a data file, expected a config; name the file in it as data.train"
    return next((words for found, words in _WORDS if found in problem), problem)


def _second_colon(lines: list[str], at: int) -> str:
    """A colon stands where none can: on its own line, or because of the line before."""
    line, before = lines[at], next((line for line in reversed(lines[:at]) if line.strip()), "")
    if line.count(":") == 1 and before and _indent(line) > _indent(before):
        if ":" not in before:
            return f"the line before it has no colon, expected one; write {before.strip()}: there"
        return "a line that is indented deeper than the one before it, which has a value already; indent both alike"
    return "a second colon on its line, expected name: value; put a text with ': ' in quotes, or each setting on a line"


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip(" "))


def _is_json_lines(text: str) -> bool:
    return text.lstrip().startswith("{") and len(text.strip().splitlines()) > 1


def character(error: yaml.reader.ReaderError, text: str) -> tuple[int, str]:
    """The line of a character that YAML does not allow, and which it is."""
    line = text.count("\n", 0, error.position) + 1
    found = error.character if isinstance(error.character, int) else error.character[0]
    return line, f"the character U+{found:04X}, expected text; remove it"
