"""Languages are those of questions and answers; what is too short to tell is undetermined and never guessed."""

import pytest

from tests.conftest import talk
from trainer.data.files import languages
from trainer.data.files.languages import UNDETERMINED, detect_languages

GERMAN = ("Wie heißt die Hauptstadt von Frankreich?", "Die Hauptstadt von Frankreich heißt Paris.")
ENGLISH = ("What does a differential do?", "It lets the wheels of an axle turn at different speeds.")


def rows(*pairs):
    return [
        talk(("system", "Réponds toujours en français, s'il te plaît."), ("user", q), ("assistant", a))
        for q, a in pairs
    ]


def test_rows_are_counted_by_language_and_system_prompts_are_not_read():
    found = detect_languages(rows(GERMAN, ENGLISH, GERMAN))
    assert found is not None
    assert (found.rows, found.by_code) == (3, {"de": 2, "en": 1})
    assert found.confidence is not None
    assert 0.9 < found.confidence <= 1


@pytest.mark.parametrize("text", ["42", "ok", "", "f(x)"])
def test_what_says_too_little_is_undetermined(text):
    found = detect_languages(rows((text, text)))
    assert found == languages.Languages(1, {UNDETERMINED: 1}, None)


def test_rows_of_a_large_file_are_looked_at_in_part(monkeypatch):
    monkeypatch.setattr(languages, "LOOKED_AT", 4)
    found = detect_languages(rows(*[GERMAN, ENGLISH] * 5))
    assert found is not None
    assert found.rows == 4


def test_without_the_detector_nothing_is_claimed(monkeypatch):
    monkeypatch.setattr(languages, "is_installed", lambda name: False)
    assert detect_languages(rows(GERMAN)) is None
