"""What callers are told names no folder of the server."""

import json

import pytest

from trainer.api.errors import ApiError, answer_of
from trainer.errors import file_error
from trainer.web.problems import Problem, problem_of


@pytest.mark.parametrize(
    ("problem", "words"),
    [
        (
            problem_of(file_error(OSError(28, "No space left", "/srv/runs/.api/ann/files/file-a/content.jsonl"))),
            "content.jsonl: No space left",
        ),
        (ApiError(500, "model.base: '/home/owner/models/llama' is no model"), "model.base: 'llama' is no model"),
        (
            ApiError(400, "a/b: see https://example.com/a/b, and meta-llama/Llama"),
            "a/b: see https://example.com/a/b, and meta-llama/Llama",
        ),
        (Problem(404, "Invalid URL (GET /v1/nothing/here)"), "Invalid URL (GET /v1/nothing/here)"),
    ],
)
def test_a_refusal_names_files_and_no_folders(problem: Problem, words: str) -> None:
    message = json.loads(bytes(answer_of(problem).body))["error"]["message"]
    assert message.lower().startswith(words.lower()), message
