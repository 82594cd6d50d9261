"""The preview shows the tokens that are trained, whole and with the reason, and counts them right."""

import json
import re
from dataclasses import replace

import pytest

from tests.conftest import CHATML, make_tokenizer, talk
from tests.families import family_tokenizer
from tests.golden_masks import CASES, renderer_of
from trainer.data.files import preview as page_module
from trainer.data.files.preview import REASONS, PreviewRow, Span, Totals, count, explain, preview_page
from trainer.data.render.rendering import Renderer
from trainer.errors import ConfigError

PLAIN = talk(("system", "S"), ("user", "Hi"), ("assistant", "Hello"))
WEIGHTED = talk(("user", "Hi"), ("assistant", "What?"), ("user", "Hi!"), ("assistant", "Hello"), untrained=[1])
NASTY = "</script><!--<script>alert(1)</script> &amp; \u2028 \U0001f600"


@pytest.fixture(scope="module")
def renderer():
    return Renderer(make_tokenizer(CHATML, ["<|im_start|>", "<|im_end|>"]))


def spans_of(renderer, row):
    return explain(renderer, row, renderer.render(row))


@pytest.mark.parametrize("row", [PLAIN, WEIGHTED])
def test_the_spans_are_the_whole_row_and_the_trained_ones_are_its_labels(renderer, row):
    (example,), (spans,) = renderer.render(row), spans_of(renderer, row)
    assert "".join(span.text for span in spans) == renderer.tokenizer.decode(example.input_ids)
    assert sum(span.num_tokens for span in spans) == len(example.input_ids)
    assert sum(span.num_tokens for span in spans if span.trained) == example.num_supervised


def test_each_span_has_its_reason(renderer):
    ((first, answer, end, last),) = spans_of(renderer, PLAIN)
    assert [span.kind for span in (first, answer, end, last)] == ["prompt", "answer", "end", "prompt"]
    assert (answer.text, end.text, last.text) == ("Hello", "<|im_end|>", "\n")
    (weighted,) = spans_of(renderer, WEIGHTED)
    assert [span.text for span in weighted if span.kind == "untrained"] == ["What?<|im_end|>"]


@pytest.mark.parametrize(("train_reasoning", "kind"), [(True, "thought"), (False, "thought-read")])
def test_a_thought_is_told_from_its_answer(train_reasoning, kind):
    made = renderer_of("qwen-3", True, train_reasoning)
    row = CASES["thoughts apart"]
    for thought, answer, spans in zip(("kind", "brief"), ("Hello there", "So long"), spans_of(made, row), strict=True):
        (shown,) = [span for span in spans if span.kind == kind]
        assert (shown.text, shown.trained) == (f"<think>\nBe {thought}.\n</think>\n\n", train_reasoning)
        assert [span.text for span in spans if span.kind == "answer"] == [f"{answer}."]
    examples = made.render(row)
    assert sum(span.num_tokens for spans in spans_of(made, row) for span in spans if span.trained) == sum(
        example.num_supervised for example in examples
    )


def test_a_thought_of_nothing_is_prompt():
    (spans,) = spans_of(renderer_of("qwen-3", True), talk(("user", "Hi"), ("assistant", "Hello there.")))
    assert [(span.kind, "<think>" in span.text) for span in spans][:2] == [("prompt", True), ("answer", False)]


def test_a_thought_that_no_answer_of_weight_0_trains_is_read():
    hidden = replace(CASES["thoughts apart"].messages[1], weight=0)
    row = replace(
        CASES["thoughts apart"],
        messages=(*CASES["thoughts apart"].messages[:1], hidden, *CASES["a thought, and none"].messages[2:]),
    )
    (spans,) = spans_of(renderer_of("muse-glimmer", True), row)
    kinds = [span.kind for span in spans]
    assert kinds == ["prompt", "thought-read", "untrained", "prompt", "thought", "answer", "end"]


def test_totals_are_sums_over_the_rows(renderer):
    pairs = [(row, renderer.render(row)) for row in (PLAIN, WEIGHTED, WEIGHTED)]
    examples = [example for _, made in pairs for example in made]
    totals = count(pairs, renderer.end_markers)
    assert totals == Totals(
        rows=3,
        tokens=sum(len(example.input_ids) for example in examples),
        trained=3 * (len("Hello") + 1),
        ends=3,
        untrained_answers=2,
        untrained_rows=2,
    )
    assert totals.trained_share == totals.trained / totals.tokens


def test_a_row_of_several_examples_and_one_that_trains_nothing_are_told(renderer):
    examples = renderer.render(PLAIN)
    totals = count([(PLAIN, examples * 2), (PLAIN, [])], renderer.end_markers)
    assert (totals.split_rows, totals.silent_rows, totals.ends) == (1, 1, 2)
    assert totals.facts()[3:] == [
        ("0 tokens", "1 row without a trained token"),
        ("history", "1 row as several examples, since the chat template rewrites earlier turns"),
    ]


def test_facts_are_told_only_where_they_apply():
    assert Totals(rows=1200, tokens=4000, trained=1000, ends=1200).facts() == [
        ("rows", "1,200"),
        ("trained", "1,000 of 4,000 tokens (25.0%)"),
        ("end markers", "1,200 trained, one after each trained answer"),
    ]


def rows_in(page):
    (block,) = re.findall(r'<script type="application/json" id="rows">(.*?)</script>', page, flags=re.DOTALL)
    return json.loads(block)


def test_the_page_holds_every_row_whatever_it_contains():
    rows = [PreviewRow(f"a.jsonl:{n}", [[Span("prompt", NASTY, 7), Span("answer", f"{n}", 1)]]) for n in range(3)]
    page = preview_page("ROWS_AS_JSON", "model", Totals(rows=3, tokens=24, trained=3, ends=0), iter(rows))
    kinds = list(REASONS)
    assert rows_in(page) == [
        [f"a.jsonl:{n}", [[[kinds.index("prompt"), 7, NASTY], [kinds.index("answer"), 1, f"{n}"]]]] for n in range(3)
    ]
    assert "alert(1)</script>" not in page


def test_title_model_and_notes_are_escaped():
    page = preview_page("<s>&", "<i>", Totals(), [], [("<u>", "<q>")])
    assert [tag for tag in ("<s>", "<i>", "<u>", "<q>") if tag in page] == []
    assert "<h1>&lt;s&gt;&amp;</h1>" in page


def test_a_page_that_no_browser_would_open_is_refused_with_the_number_of_rows_that_fit(monkeypatch):
    row = PreviewRow("a:1", [[Span("prompt", "x" * 1000, 1)]])
    monkeypatch.setattr(page_module, "MAX_PAGE_BYTES", 5_500)
    with pytest.raises(ConfigError) as raised:
        preview_page("t", "m", Totals(rows=9), [row] * 9)
    assert raised.value.problems == (
        "--html: 9 rows make a page of more than 0 MB, expected one that a browser can open; add --rows 5 or fewer",
    )
    preview_page("t", "m", Totals(rows=5), [row] * 5)


def kinds(family, *answers, untrained):
    renderer = Renderer(family_tokenizer(family))
    turns = [turn for answer in answers for turn in (("user", "Hi"), ("assistant", answer))]
    spans = spans_of(renderer, talk(*turns, untrained=untrained))
    return [[(span.kind, span.text) for span in row if span.kind != "prompt"] for row in spans]


def test_answers_of_weight_0_are_told_from_what_the_model_reads():
    assert kinds("qwen-2.5", "Bye", "Hello", untrained=[1]) == [
        [("untrained", "Bye<|im_end|>"), ("answer", "Hello"), ("end", "<|im_end|>")]
    ]


def test_an_answer_of_weight_0_need_not_be_trainable():
    assert kinds("qwen-2.5", "\nBye", "Hello", untrained=[1]) == [[("answer", "Hello"), ("end", "<|im_end|>")]]
