"""A chat template is a program that came with a model: what it takes is limited wherever it runs."""

import mmap
import os
import sys
import threading
import time
from collections.abc import Callable

import pytest

from tests.conftest import CHATML, make_tokenizer
from trainer.data.render import template_limits
from trainer.data.render.chat_template import MAX_TOO_MUCH, ChatTemplate, RenderingError
from trainer.data.render.rendering import Renderer
from trainer.data.render.template_limits import MAX_BYTES, TemplateLimit, limited

pytestmark = pytest.mark.apart

MAP_NORESERVE = 0x4000  # of Linux; Python 3.11 has no name for it
ENDLESS = "{% for a in range(90000) %}{% for b in range(90000) %}{% endfor %}{% endfor %}"
BOMBS = {
    "endless": ENDLESS,
    "giant": "{{ 'x' * 1099511627776 }}",
    "large": "{{ 'x' * 8589934592 }}",
    "list": "{% set n = [0] * 8589934592 %}",
    "deep": "{% macro f(n) %}{{ f(n + 1) }}{% endmacro %}{{ f(0) }}",
}
TEMPLATE = "{% set said = messages[-1].content %}" + "".join(
    f"{{% if said == '{name}' %}}{bomb}{{% endif %}}" for name, bomb in BOMBS.items()
)


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(template_limits, "MAX_SECONDS", 0.3)


@pytest.fixture
def template() -> ChatTemplate:
    return ChatTemplate(make_tokenizer(TEMPLATE + CHATML, ["<|im_start|>", "<|im_end|>"], eos_token="<|im_end|>"))


def user(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


@pytest.mark.parametrize("bomb", BOMBS)
def test_a_conversation_that_takes_too_much_is_refused_and_the_next_is_rendered(
    template: ChatTemplate, bomb: str
) -> None:
    with pytest.raises(RenderingError, match=r"this model's chat template (takes more than 10 seconds|refuses)"):
        template.text(user(bomb))
    assert "fine" in template.text(user("fine"))


def test_a_template_that_always_takes_too_much_is_not_asked_again(template: ChatTemplate) -> None:
    for _ in range(MAX_TOO_MUCH):
        with pytest.raises(RenderingError):
            template.text(user("endless"))
    before = time.thread_time()
    with pytest.raises(RenderingError, match="takes more than"):
        template.text(user("fine"))
    assert time.thread_time() - before < 0.1


def test_a_template_whose_probes_do_not_end_is_refused() -> None:
    tokenizer = make_tokenizer(ENDLESS + CHATML, ["<|im_start|>", "<|im_end|>"], eos_token="<|im_end|>")
    with pytest.raises(RenderingError, match="takes more than"):
        Renderer(tokenizer).template.check()


def in_threads(*works: Callable[[], object]) -> list[object]:
    """What each has returned or raised, in threads side by side."""
    results: list[object] = [None] * len(works)

    def do(index: int) -> None:
        try:
            results[index] = works[index]()
        except Exception as error:
            results[index] = error

    threads = [threading.Thread(target=do, args=(index,)) for index in range(len(works))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


def endless() -> None:
    while True:
        pass


def short_ones() -> int:
    return sum(limited(lambda: 1) for _ in range(2000))


def test_the_thread_that_takes_too_much_ends_and_no_other() -> None:
    first, *others = in_threads(lambda: limited(endless), short_ones, short_ones)
    assert isinstance(first, TemplateLimit)
    assert others == [2000, 2000]


def test_nothing_comes_after_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Renderings that end just as their time does: the exception comes within them, or not at all."""
    monkeypatch.setattr(template_limits, "MAX_SECONDS", 0.0)
    monkeypatch.setattr(template_limits, "WATCH_SECONDS", 0.001)
    ended = 0
    for number in range(300):
        try:
            limited(lambda: sum(range(5_000 + 37 * number)))  # noqa: B023
        except TemplateLimit:
            ended += 1
        assert sum(range(1000)) == 499_500
    time.sleep(0.05)
    assert not template_limits._WATCH.running


def test_waiting_is_not_working() -> None:
    assert limited(lambda: time.sleep(1.0)) is None


def test_a_copy_of_the_process_is_watched_too() -> None:
    assert limited(lambda: 1) == 1
    copy = os.fork()
    if copy == 0:
        try:
            limited(endless)
        except TemplateLimit:
            os._exit(7)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(copy, 0)[1]) == 7


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells how much address space a process has")
def test_what_the_process_itself_has_taken_meanwhile_is_not_laid_to_the_template() -> None:
    limited(lambda: None)  # measures what the process has, for a second
    with mmap.mmap(-1, MAX_BYTES + 2**30, flags=mmap.MAP_PRIVATE | MAP_NORESERVE):
        assert len(limited(lambda: bytes(2**27))) == 2**27
