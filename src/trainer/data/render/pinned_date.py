"""Chat templates that write today's date, with the clock stopped: a rendering must not depend on the day.

Llama 3.2, SmolLM3, Granite and gpt-oss ask transformers for the date by calling `strftime_now`. With a running clock
a run that is resumed tomorrow would train on other tokens than today, and serving would send other prompts than were
trained. A macro of the same name in front of the template shadows the clock wherever the template is rendered.
"""

from typing import Any

# The date that Meta's templates fall back to when they have no clock; a Friday.
_DATE = {"-d": "26", "d": "26", "m": "07", "b": "Jul", "B": "July", "y": "24", "Y": "2024", "a": "Fri", "A": "Friday"}
_CLOCK = {"H": "00", "M": "00", "S": "00"}
_PIN = (
    "{%- macro strftime_now(format) -%}{%- set date = format"
    + "".join(f" | replace('%{directive}', '{text}')" for directive, text in (_DATE | _CLOCK).items())
    + " -%}{{ raise_exception('the date format ' + format + ' cannot be pinned') if '%' in date else date }}"
    "{%- endmacro -%}{{ '' }}"
)


def with_pinned_date(template: Any) -> Any:
    """`template` with the clock stopped at 26 July 2024, where it writes today's date; else unchanged.

    A template that asks for a time zone or another rare form refuses to render.
    """
    if isinstance(template, dict):
        return {name: with_pinned_date(text) for name, text in template.items()}
    if template is None or "strftime_now" not in template or template.startswith(_PIN):
        return template
    return _PIN + template
