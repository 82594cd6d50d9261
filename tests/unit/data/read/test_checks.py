"""The rules across rows and files, the texts of rows, and the sizes of a data set."""

import json
from pathlib import Path

import pytest

from trainer.data.read import checks
from trainer.data.read import rows as row_reader
from trainer.data.read.checks import check_files
from trainer.data.rules.catalog import RULES
from trainer.errors import DataError


def row(prompt="Hi", answer="Hello", system=None, **keys):
    first = [] if system is None else [{"role": "system", "content": system}]
    turns = [{"role": "user", "content": prompt}, {"role": "assistant", "content": answer, **keys}]
    return {"messages": first + turns}


def rows(num_rows, prefix="question", **keys):
    return [row(f"{prefix} {index}", f"answer {index}", **keys) for index in range(num_rows)]


@pytest.fixture
def written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def write(name, *parts):
        lines = [json.dumps(line) for part in parts for line in (part if isinstance(part, list) else [part])]
        (tmp_path / name).write_text("\n".join(lines), encoding="utf-8")
        return Path(name)

    return write


def told(train, validation=(), **keys):
    return [str(finding) for finding in check_files(train, validation, **keys).findings]


def test_clean_files_have_no_findings(written):
    report = check_files([written("a.jsonl", rows(50))], [written("b.jsonl", rows(5, "other"))])
    assert report.findings == []
    assert (report.rows, report.validation_rows) == (50, 5)
    assert (len(report.conversations), len(report.validation)) == (50, 5)
    report.raise_on_errors()


DUPLICATES = {
    "exact": (row(), "DUPLICATE: the row is the same as line 1, expected every row once; remove one"),
    "white space in the answer": (
        row(answer=" Hello\n"),
        "NEAR_DUPLICATE: the row differs from line 1 in white space only, expected every row once; remove one",
    ),
    "white space in the prompt": (
        row(prompt="Hi  "),
        "NEAR_DUPLICATE: the row differs from line 1 in white space only, expected every row once; remove one",
    ),
    "another answer": (
        row(answer="Bye"),
        (
            "SAME_PROMPT: the row has the same prompt as line 1 and another answer, expected one answer to a prompt; "
            "keep the better answer unless variety is wanted"
        ),
    ),
    "other weight": (row(weight=1), "DUPLICATE: the row is the same as line 1, expected every row once; remove one"),
    "another system prompt": (row(system="Be brief."), "SYSTEM_PROMPTS"),
    "other capitals": (row(prompt="hi"), None),
    "other name": (row(name="bot"), "SAME_PROMPT"),
    "a thought": (row(reasoning_content="Well."), "SAME_PROMPT"),
    "words joined": (row(prompt="H i"), None),
}


@pytest.mark.parametrize(("second", "expected"), DUPLICATES.values(), ids=DUPLICATES)
def test_second_row_against_the_first(written, second, expected):
    findings = told([written("a.jsonl", row(), second, rows(50))])
    assert len(findings) == (expected is not None)
    assert not findings or findings[0].startswith(f"a.jsonl:2: {expected}")


def test_one_finding_for_each_repeated_row(written):
    findings = told([written("a.jsonl", [row()] * 4, rows(50))])
    assert [text.split(", ")[0] for text in findings] == [
        f"a.jsonl:{line}: DUPLICATE: the row is the same as line 1" for line in (2, 3, 4)
    ]


def test_rows_that_train_different_turns_are_no_duplicates(written):
    def weighted(first, last):
        messages = row(weight=first)["messages"] + row("More", weight=last)["messages"]
        return {"messages": messages}

    assert told([written("a.jsonl", weighted(0, 1), weighted(1, 0), rows(50))]) == []


def test_rows_with_different_tools_or_calls_are_no_duplicates(written):
    def calling(name, arguments="{}"):
        call = {"id": "c", "type": "function", "function": {"name": name, "arguments": arguments}}
        messages = [{"role": "user", "content": "Hi"}, {"role": "assistant", "tool_calls": [call]}]
        return {"messages": messages, "tools": [{"type": "function", "function": {"name": name}}]}

    findings = told([written("a.jsonl", calling("a"), calling("b"), calling("a", '{"x": 1}'), calling("a"), rows(50))])
    assert [text.split(":")[1:3] for text in findings] == [["3", " SAME_PROMPT"], ["4", " DUPLICATE"]]


def test_duplicates_over_two_training_files_name_both_places(written):
    findings = told([written("a.jsonl", rows(50)), written("b.jsonl", row("question 7", "answer 7"))])
    assert findings == ["b.jsonl:1: DUPLICATE: the row is the same as a.jsonl:8, expected every row once; remove one"]


def test_validation_rows_that_are_trained_are_errors(written):
    train, validation = (
        written("a.jsonl", rows(50)),
        written("b.jsonl", rows(1, "new"), row("question 3", "answer  3 ")),
    )
    expected = (
        "b.jsonl:2: LEAK: the row also stands in a.jsonl:4, expected a row that is not trained; "
        "remove it from one of the two files"
    )
    assert told([train], [validation]) == [expected]
    with pytest.raises(DataError, match="LEAK"):
        check_files([train], [validation]).raise_on_errors()
    allowed = check_files([train], [validation], allow_leak=True)
    assert [str(finding) for finding in allowed.findings] == [expected]
    assert allowed.severities == {"error": 0, "warning": 1}


def test_a_leak_with_other_weights_is_a_leak(written):
    train = written("a.jsonl", rows(50), {"messages": row(weight=0)["messages"] + row("More")["messages"]})
    validation = written("b.jsonl", {"messages": row()["messages"] + row("More")["messages"]})
    assert [text.split(": ")[1] for text in told([train], [validation])] == ["LEAK"]


def test_validation_prompt_with_another_answer_is_a_warning(written):
    findings = told([written("a.jsonl", rows(50))], [written("b.jsonl", row("question 0", "Bye"))])
    assert [text.split(",")[0] for text in findings] == [
        "b.jsonl:1: SAME_PROMPT: the row has the same prompt as a.jsonl:1 and another answer"
    ]


def test_one_file_for_both_is_one_finding(written):
    path = written("a.jsonl", rows(50))
    assert told([path], [path.absolute()]) == [
        (
            "a.jsonl: LEAK: the file is both trained and validated, expected a file of one kind; "
            "remove it from one of the two files"
        )
    ]


def test_a_file_listed_twice_is_one_finding_and_trained_twice(written):
    path = written("a.jsonl", rows(50))
    report = check_files([path, path])
    assert [str(finding) for finding in report.findings] == [
        "a.jsonl: DUPLICATE: the file is listed more than once, expected every file once; remove one"
    ]
    assert (report.rows, len(report.conversations)) == (100, 100)


@pytest.mark.parametrize(
    ("num_rows", "local", "openai"),
    [(1, "warning", "error"), (9, "warning", "error"), (10, "warning", "warning"), (49, "warning", "warning")],
)
def test_few_rows(written, num_rows, local, openai):
    path = written("a.jsonl", rows(num_rows))
    for backend, severity in (("local", local), ("azureml", local), ("openai", openai)):
        [finding] = check_files([path], backend=backend).findings
        assert finding.severity == severity
        assert finding.code == ("TOO_FEW_ROWS" if num_rows < 10 else "FEW_ROWS")


def test_few_rows_in_words(written):
    assert told([written("a.jsonl", rows(4)), written("b.jsonl", rows(3, "b"))]) == [
        "a.jsonl: TOO_FEW_ROWS: the training data has 7 rows, expected at least 10; add rows"
    ]
    assert told([written("a.jsonl", rows(1))], backend="openai") == [
        "a.jsonl: TOO_FEW_ROWS: the training data has a row, expected at least 10; add rows"
    ]


def test_an_empty_validation_file_is_an_error(written):
    report = check_files([written("a.jsonl", rows(50))], [written("b.jsonl")])
    assert [(finding.file, finding.code) for finding in report.errors] == [("b.jsonl", "NO_ROWS")]


def test_missing_files_are_named_together(written):
    path = written("a.jsonl", rows(50))
    with pytest.raises(DataError) as caught:
        check_files([path.with_name("aa.jsonl")], [path.with_name("b.jsonl")])
    below = f"(looked for below {Path.cwd()})"
    assert caught.value.problems == (
        f"aa.jsonl: the file does not exist, expected a chat JSONL file; did you mean a.jsonl? {below}",
        f"b.jsonl: the file does not exist, expected a chat JSONL file; check the path, there is a.jsonl {below}",
    )


def test_sizes_on_the_service(written, monkeypatch):
    path = written("a.jsonl", rows(50))
    num_bytes = path.stat().st_size
    monkeypatch.setattr(row_reader, "MAX_SERVICE_FILE_BYTES", num_bytes - 1)
    monkeypatch.setattr(checks, "MAX_AZURE_BYTES", num_bytes - 1)
    report = check_files([path], backend="openai")
    fix = "train on fewer rows, or use the local or azureml backend"
    assert [(finding.severity, str(finding)) for finding in report.findings] == [
        (
            "error",
            (
                f"a.jsonl: FILE_SIZE: the file holds {num_bytes} bytes, "
                f"expected at most {num_bytes - 1} on the openai backend; {fix}"
            ),
        ),
        (
            "warning",
            (
                f"a.jsonl: FILE_SIZE: the files hold {num_bytes} bytes, "
                f"expected at most {num_bytes - 1} in all on Azure OpenAI; {fix}"
            ),
        ),
    ]
    assert told([path]) == []


def test_stray_system_prompts_are_told_with_counts(written):
    data = [*rows(60, system="Be brief."), row("x", "y", "Be breif."), row("z", "w"), row("v", "u", "Be  brief. ")]
    assert told([written("a.jsonl", data)]) == [
        (
            "a.jsonl:61: SYSTEM_PROMPTS: the system prompt differs from that of 61 other rows, as it does in 2 rows "
            "(line 61 and line 62), expected the same for all rows; use the usual prompt unless the difference is meant"
        )
    ]


@pytest.mark.parametrize(
    "systems",
    [["one"] * 60, [None] * 60, [f"prompt {i}" for i in range(60)], ["one"] * 30 + ["two"] * 30],
)
def test_system_prompts_without_a_habit_are_fine(written, systems):
    data = [row(f"q{index}", f"a{index}", system) for index, system in enumerate(systems)]
    assert told([written("a.jsonl", data)]) == []


DEBRIS = {
    "**Berlin": "begins with '**'",
    "** Berlin **": "begins with '**'",
    "Berlin.**": "ends with '**'",
    "A: Berlin": "begins with 'A:'",
    "**A:** Berlin": "begins with '**A:'",
    "Q1: Which city?": "begins with 'Q1:'",
    "Berlin.\n\nQ:": "ends with 'Q:'",
    "Berlin.\n**Q2:**": "ends with '**Q2:**'",
    "Assistant: Berlin": "begins with 'Assistant:'",
    "Berlin<|im_end|>": "ends with '<|im_end|>'",
    "Berlin</s>\n": "ends with '</s>'",
    "<|im_start|>Berlin": "begins with '<|im_start|>'",
    "**Berlin** is the capital": None,
    "It is **Berlin**": None,
    "**Berlin**": None,
    "Answer A: Berlin, because B: is wrong": None,
    "FAQ:": None,
    "2**3 is 8": None,
    "* a\n* b": None,
}


@pytest.mark.parametrize(("answer", "found"), DEBRIS.items())
def test_debris_at_the_ends_of_answers(written, answer, found):
    findings = told([written("a.jsonl", row("Which?", answer), rows(50))])
    assert [text.split(", expected")[0] for text in findings] == (
        [f"a.jsonl:1: DEBRIS: messages[1].content {found}"] if found else []
    )


def test_debris_in_untrained_answers_is_left_alone(written):
    messages = row(answer="A: Hello", weight=0)["messages"] + row("More")["messages"]
    assert told([written("a.jsonl", {"messages": messages}, rows(50))]) == []


def test_secrets_are_told_once_and_never_shown(written):
    secret = "h" + "f_" + "aBcDeF" * 6
    data = [row(f"The token is {secret}.", "Thanks."), row("Which token?", f"It is {secret}."), *rows(50)]
    assert told([written("a.jsonl", data)]) == [
        (
            "a.jsonl:1: SECRET: messages[0].content holds what looks like a Hugging Face token ('hf_a…'), "
            "expected text without it; remove it and revoke it"
        )
    ]


def test_secrets_in_calls_are_found(written):
    arguments = json.dumps({"to": "maria.keller@contoso-bikes.com"})
    call = {"id": "c", "type": "function", "function": {"name": "mail", "arguments": arguments}}
    messages = [{"role": "user", "content": "Mail her"}, {"role": "assistant", "tool_calls": [call]}]
    tools = [{"type": "function", "function": {"name": "mail"}}]
    assert told([written("a.jsonl", {"messages": messages, "tools": tools}, rows(50))]) == [
        (
            "a.jsonl:1: PERSONAL_DATA: messages[1].tool_calls[0].function.arguments holds what looks like an e-mail "
            "address ('mari…'), expected text without it; remove it or replace it by an invented one"
        )
    ]


def test_rows_with_different_images_are_no_duplicates(written):
    def showing(url):
        parts = [{"type": "text", "text": "What is this?"}, {"type": "image_url", "image_url": {"url": url}}]
        return row(parts, "A bird.")

    data = [showing("https://a.example/1.png"), showing("https://a.example/2.png"), *rows(50)]
    report = check_files([written("a.jsonl", data)], backend="openai")
    assert report.findings == []
    assert report.conversations[0].messages[0].images == ("https://a.example/1.png",)


def test_findings_are_ordered_by_file_and_line(written):
    first = written("b.jsonl", 7, rows(50), row("question 0", "A: no"), 8)
    second = written("a.jsonl", row("question 1", "answer 1"), 9)
    findings = check_files([first], [second]).findings
    assert [(finding.file, finding.line, finding.code) for finding in findings] == [
        ("b.jsonl", 1, "ROW"),
        ("b.jsonl", 52, "DEBRIS"),
        ("b.jsonl", 52, "SAME_PROMPT"),
        ("b.jsonl", 53, "ROW"),
        ("a.jsonl", 1, "LEAK"),
        ("a.jsonl", 2, "ROW"),
    ]


def test_every_rule_has_words_and_a_severity():
    for code, rule in RULES.items():
        assert code == rule.code == code.upper()
        assert all((rule.title, rule.explanation.endswith("."), rule.fix, not rule.fix.endswith(".")))
        assert {rule.severity("local"), rule.severity("azureml"), rule.severity("openai")} <= {"error", "warning"}
