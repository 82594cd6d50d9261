"""Tokens are counted by the model's encoding, or bounded by bytes."""

from collections.abc import Iterator

import pytest

from trainer.backends.openai import prices
from trainer.data.conversations import Conversation, Message, ToolCall

ROW = Conversation(
    (
        Message("system", "Sei kurz. 雪"),
        Message("user", "Wie wird das Wetter?", name="Ada"),
        Message("assistant", None, tool_calls=(ToolCall("c1", "weather", '{"city": "Bern"}'),)),
        Message("tool", "-3 °C", tool_call_id="c1"),
        Message("assistant", "Kalt.", weight=0),
        Message("assistant", "Minus drei."),
    ),
    ({"type": "function", "function": {"name": "weather"}},),
    "rows.jsonl",
    1,
)


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    prices.encoding_for.cache_clear()
    yield
    prices.encoding_for.cache_clear()


def test_without_an_encoding_the_count_says_that_it_is_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tiktoken.get_encoding", refuse)
    count = prices.count([ROW], "gpt-4.1-mini")
    text = "".join(message.content or "" for message in ROW.messages)
    assert count.encoding == ""
    assert count.how.startswith("at most: one token a byte")
    assert count.num_tokens > len(text.encode())


def refuse(name: str) -> None:
    raise ConnectionError(f"no network for {name}")


def test_the_bound_is_never_below_any_byte_pair_encoding(monkeypatch: pytest.MonkeyPatch) -> None:
    class Halving:
        """Two bytes a token, as a byte-pair encoding may at worst not manage."""

        @staticmethod
        def encode_ordinary(text: str) -> list[int]:
            return list(range((len(text.encode()) + 1) // 2))

    monkeypatch.setattr("tiktoken.get_encoding", lambda name: Halving)
    counted = prices.count([ROW], "gpt-4.1-mini")
    prices.encoding_for.cache_clear()
    monkeypatch.setattr("tiktoken.get_encoding", refuse)
    assert counted.encoding == "o200k_base"
    assert prices.count([ROW], "gpt-4.1-mini").num_tokens >= counted.num_tokens


@pytest.mark.parametrize(
    ("family", "name"),
    [("gpt-4.1-nano", "o200k_base"), ("gpt-4o", "o200k_base"), ("gpt-3.5-turbo", "cl100k_base"),
     ("gpt-4", "cl100k_base"), ("o4-mini", "o200k_base"), ("a-model-of-tomorrow", "o200k_base")],
)  # fmt: skip
def test_a_family_has_its_encoding(family: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr("tiktoken.get_encoding", lambda encoding: asked.append(encoding))
    prices.encoding_for(family)
    assert asked == [name]


def test_only_trained_messages_are_supervised() -> None:
    lengths = [prices.message_tokens(message, prices.num_bytes) for message in ROW.messages]
    assert prices.count([ROW], "x").num_supervised == lengths[2] + lengths[5]
    assert prices.row_tokens(ROW, prices.num_bytes) > sum(lengths)
