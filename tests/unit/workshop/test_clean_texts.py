"""Faults of single texts: each is mended as written here, and what only looks like one stays."""

import time

import pytest

from trainer.workshop.clean.answers import is_empty, refusal
from trainer.workshop.clean.debris import (
    cut_answer_label,
    cut_fence,
    cut_markup,
    cut_next_question,
    cut_question_label,
)
from trainer.workshop.clean.encoding import cut_control, cut_invisible, decode_entities, mend_mojibake


def cut_label(text):
    return cut_answer_label(text, "What is a hub?")


MENDED = [
    (mend_mojibake, "CafÃ© au lait", "Café au lait"),
    (mend_mojibake, "Itâ€™s a hub", "It’s a hub"),
    (mend_mojibake, "SchlÃ¼ssel fÃ¼r GrÃ¶ÃŸen", "Schlüssel für Größen"),
    (cut_control, "a\x1b[31mred\x1b[0m\x08 hub", "ared hub"),
    (cut_control, "one\ttwo\nthree\r\n", "one\ttwo\nthree\r\n"),
    (cut_invisible, "brake\u200b pad\ufeff", "brake pad"),
    (cut_invisible, "so\u00adft \u200ehub", "soft hub"),
    (decode_entities, "nuts &amp; bolts &#39;M5&#x27; &lt;3", "nuts & bolts 'M5' <3"),
    (decode_entities, "50&nbsp;mm", "50 mm"),
    (cut_fence, "```markdown\nA hub.\n```", "A hub."),
    (cut_fence, "\n```\nA hub.\n\nRound.\n```\n", "A hub.\n\nRound."),
    (cut_fence, '```json\n{"a": 1}\n```', '{"a": 1}'),
    (cut_fence, "A hub.\n```", "A hub."),
    (cut_fence, "```text\nA hub.", "A hub."),
    (cut_next_question, "A hub.\n\n---\n\n**Q: What is a rim?**", "A hub."),
    (cut_next_question, "A hub.\n\n**Q:** What is a rim?  \n**", "A hub."),
    (cut_next_question, "A hub.\nUser: What is a rim?", "A hub."),
    (cut_label, "**Answer:** A hub.", "A hub."),
    (cut_label, "**Answer**: A hub.", "A hub."),
    (cut_label, "### Response:\nA hub.", "A hub."),
    (cut_label, "A: A hub.", "A hub."),
    (cut_label, "**A12:** A hub.", "A hub."),
    (cut_label, "Assistant: A hub.", "A hub."),
    (cut_label, "Antwort: Eine Nabe.", "Eine Nabe."),
    (cut_label, "回答：輪軸。", "輪軸。"),
    (cut_question_label, "Q: What is a hub?", "What is a hub?"),
    (cut_question_label, "### Instruction:\nExplain hubs.", "Explain hubs."),
    (cut_markup, "** A hub.\n**", "A hub."),
    (cut_markup, "A hub.**", "A hub."),
    (cut_markup, "A hub.\n\n---", "A hub."),
    (cut_markup, "A hub. ###", "A hub."),
    (cut_markup, "##\nA hub.", "A hub."),
    (cut_markup, "---\nA hub.", "A hub."),
    (cut_markup, "A hub.<|im_end|>", "A hub."),
]  # fmt: skip
LEFT = [
    (mend_mojibake, "naïve café, Größe, 日本語, emoji 🚲, “quotes”, ±5 °C"),
    (cut_control, "plain text"),
    (cut_invisible, "👨\u200d🔧 می\u200cخواهم ไทย\u200bไทย \u200fשלום"),
    (decode_entities, "Write <b> and &amp; as entities"),
    (decode_entities, "`&lt;` is a code, AT&T; and R&D; are names"),
    (decode_entities, "in XML &quot; is a quote"),
    (cut_fence, "```python\nprint(1)\n```"),
    (cut_fence, "```json\nnot json\n```"),
    (cut_fence, "Run this:\n```\nls\n```"),
    (cut_fence, "```\nSELECT 1;\n```"),
    (cut_fence, "```\nfor hub in hubs:\n    turn\n```"),
    (cut_label, "A1: the first cell, and B1: the next"),
    (cut_markup, "---\ntitle: Hubs\ntags:\n  - rim\n---\nA hub."),
    (cut_next_question, "Q: What?\nA: That.\n\nQ: And?\nA: This."),
    (cut_next_question, "Three parts:\n\nQuestion: one thing\n\nThen more follows."),
    (cut_next_question, "Q: What is a hub?"),
    (cut_label, "Answering this: yes."),
    (cut_label, "Ai is a name."),
    (cut_label, "The answer: a hub."),
    (cut_question_label, "User manuals: which one?"),
    (cut_markup, "**Hub** is bold, and so is **rim**"),
    (cut_markup, "**Hub**"),
    (cut_markup, "# Hubs\nThey turn."),
    (cut_markup, "2**3 is 8"),
    (cut_markup, "C# or F#"),
    (cut_markup, "use `**` for bold**"),
    (cut_markup, "- one\n- two"),
]  # fmt: skip
REFUSALS = [
    "As an AI language model, I cannot give advice on that.",
    "I'm sorry, but as an AI assistant I don't have access to that.",
    "I’m sorry, but I can’t assist with that request.",
    "Sorry, I can't help with that.",
    "I am unable to help you with that request.",
    "I cannot comply with this request.",
    "I must decline to answer.",
    "Es tut mir leid, aber ich kann dir dabei nicht helfen.",
    "Als KI-Modell kann ich dazu nichts sagen, da ich keine Meinung habe.",
    "Je suis désolé, mais je ne peux pas répondre à cette question.",
    "Lo siento, pero no puedo ayudarte con eso.",
    "Desculpe, mas não posso ajudar com isso.",
    "Mi dispiace, ma non posso aiutarti.",
    "Sorry, maar daar kan ik je niet bij helpen.",
    "Przepraszam, ale nie mogę pomóc.",
    "Tyvärr, jag kan inte hjälpa till med det.",
    "Üzgünüm, bu konuda yardımcı olamam.",
    "Извините, но я не могу помочь с этим.",
    "很抱歉，我无法回答这个问题。",
    "申し訳ありませんが、その質問にはお答えできません。",
    "죄송하지만 그 질문에는 답변할 수 없습니다.",
]
ANSWERS = [
    "I'm sorry to hear that your chain broke. Send us a photo.",
    "Sorry, we are closed on Mondays.",
    "I can't find your order; please send its number.",
    "Unfortunately the frame is out of stock until May.",
    "Leider ist der Rahmen ausverkauft.",
    "As an AI engineer you will design models.",
    "As an AI assistant I am glad to help.",
    "I cannot recommend this tire enough.",
    "No.",
]


@pytest.mark.parametrize(("mend", "text", "mended"), MENDED)
def test_damage_is_mended_once_and_for_all(mend, text, mended):
    assert mend(text) == mended
    assert mend(mended) == mended


@pytest.mark.parametrize(("mend", "text"), LEFT)
def test_sound_text_stays(mend, text):
    assert mend(text) == text


def test_the_letter_of_an_offered_option_is_no_label():
    asked = "Which one is round?\nA) the hub\nB) the frame"
    assert cut_answer_label("A: the hub", asked) == "A: the hub"
    assert cut_answer_label("Answer: A", asked) == "A"


@pytest.mark.parametrize("text", REFUSALS)
def test_refusal_is_found_at_the_beginning_of_a_short_answer_only(text):
    found = refusal(text)
    assert found is not None
    assert text.startswith(found)
    assert refusal(f"The model says: {text}") is None
    assert refusal(text + " Here is what you can do." * 20) is None


@pytest.mark.parametrize("text", ANSWERS)
def test_an_answer_with_regret_is_no_refusal(text):
    assert refusal(text) is None


@pytest.mark.parametrize("text", ["...", " - ", "?!", "**Answer:**", "NaN", "N/A", "[answer]", "\u200b", "Answer here"])
def test_text_without_content_is_empty(text):
    assert is_empty(text)


@pytest.mark.parametrize("text", ["No.", "7", "👍", "€", "+", "√", "はい", "Null pointers crash.", "none", "A"])
def test_short_answers_are_not_empty(text):
    assert not is_empty(text)


MENDS = [
    mend_mojibake, cut_control, cut_invisible, decode_entities, cut_fence, cut_next_question, cut_label, cut_markup,
    is_empty,
]  # fmt: skip
PIECES = [
    "\n",
    " \n", "**", "** ", "&amp;", "&", "```\n", "``` ", "Q: ", "\nQ:", "A: ", "---\n", "\u200b", "\u200d", "\x1b[1",
    "Ã©", "# ", "i am sorry ", "as an ai ",
]  # fmt: skip


@pytest.mark.apart
@pytest.mark.parametrize("piece", PIECES, ids=map(repr, PIECES))
@pytest.mark.parametrize("mend", MENDS)
def test_long_runs_of_anything_take_linear_time(mend, piece):
    def seconds(size):
        text = "x " + piece * (size // len(piece)) + "y"
        times = []
        for _ in range(3):  # a collection of garbage in a large process takes longer than the text
            begun = time.process_time()
            mend(text)
            times.append(time.process_time() - begun)
        return min(times)

    assert seconds(40_000) < 20 * seconds(5_000) + 0.05
