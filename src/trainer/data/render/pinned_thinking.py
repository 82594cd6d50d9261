"""Chat templates that think only when they are asked to, asked by default for what the rows do.

Qwen3's prompt lets the model think, and its template writes an empty thought before an answer without one; served by
default, a model tuned on plain answers would think first, as it never did in training. Gemma 4 and DeepSeek-V3.1 do not
think unless they are asked. A default in front of the template decides it wherever the template is rendered; who serves
the model can still say otherwise.
"""

from typing import TYPE_CHECKING, Any

from trainer.data.render.probes import PROBE, USER, RenderingError

if TYPE_CHECKING:
    from trainer.data.render.chat_template import ChatTemplate

NAMES = ("enable_thinking", "thinking")
_MODES = {
    thinks: [f"{{%- set {name} = {name} | default({str(thinks).lower()}) -%}}" for name in NAMES]
    for thinks in (True, False)
}


def pin_thinking(template: "ChatTemplate", thinks: bool) -> None:
    """Ask `template` by default for thoughts, or for none, where that changes what it renders."""
    tokenizer = template.tokenizer
    before, shown = tokenizer.chat_template, _shown(template)
    if not isinstance(before, str) or pinned_mode(before) == thinks:
        return
    tokenizer.chat_template = _pinned(before, thinks)
    if _shown(template) == shown:
        tokenizer.chat_template = before


def pinned_mode(template: Any) -> bool | None:
    """True of a template that is asked by default for thoughts, False of one asked for none; None where neither."""
    pins = {pin: thinks for thinks, pins in _MODES.items() for pin in pins}
    return next((thinks for pin, thinks in pins.items() if str(template).startswith(pin)), None)


def unpinned(template: Any) -> str:
    """The template without the defaults in front of it, which follow from the rows."""
    text = str(template)
    while pin := next((pin for pins in _MODES.values() for pin in pins if text.startswith(pin)), None):
        text = text.removeprefix(pin)
    return text


def _pinned(source: str, thinks: bool) -> str:
    from jinja2 import TemplateSyntaxError, meta
    from transformers.utils.chat_template_utils import _compile_jinja_template

    try:
        environment = _compile_jinja_template(source).environment
        read = meta.find_undeclared_variables(environment.parse(source))
    except TemplateSyntaxError:
        return source  # the first rendering will tell
    pins = [pin for name, pin in zip(NAMES, _MODES[thinks], strict=True) if name in read]
    return "".join(pins) + source


def _shown(template: "ChatTemplate") -> list[str]:
    """Renderings of a question and of an answer with a thought; empty where it refuses both."""
    answer = {"role": "assistant", "content": PROBE, "reasoning_content": "probe thought"}
    try:
        return [template.text([USER], prompt=True), template.text([USER, answer])]
    except RenderingError:
        return []
