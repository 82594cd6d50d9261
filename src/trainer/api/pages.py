"""Lists in OpenAI's form: a page of the items behind `after`, at most `limit` of them."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, TypeVar

from trainer.api.errors import invalid
from trainer.web.words import whole_number


class _HasId(Protocol):
    @property
    def id(self) -> str: ...


Item = TypeVar("Item", bound=_HasId)


def page_of(
    items: Sequence[Item], after: str | None, limit: int, show: Callable[[Item], dict[str, Any]]
) -> dict[str, Any]:
    """The page; only its own items are shown. Raises: ApiError, when `after` is none of the items."""
    start = 0
    if after:
        if (found := next((at for at, item in enumerate(items) if item.id == after), None)) is None:
            raise invalid("after", f"no object {after[:200]!r} is in this list")
        start = found + 1
    chosen = [show(item) for item in items[start : start + limit]]
    return {"object": "list", "data": chosen, "has_more": start + limit < len(items)}


def with_ends(page: dict[str, Any], empty: str | None = None) -> dict[str, Any]:
    """A page with the ids of its first and last item; `empty` where it has none."""
    data = page["data"]
    return page | {
        "first_id": data[0]["id"] if data else empty,
        "last_id": data[-1]["id"] if data else empty,
    }


def limit_of(query: Mapping[str, str], default: int, most: int) -> int:
    """The number of items that a request wants. Raises: ApiError."""
    if (given := query.get("limit")) is None:
        return default
    number = whole_number(given, most + 1)
    if number is None or not 1 <= number <= most:
        raise invalid("limit", f"is {given[:40]!r}, expected a whole number from 1 to {most:,}")
    return number


def choice_of(query: Mapping[str, str], name: str, default: str, accepted: Sequence[str]) -> str:
    """A word of the query. Raises: ApiError, where it is none of those accepted."""
    if (given := query.get(name, default)) not in accepted:
        raise invalid(name, f"is {given[:40]!r}, expected {' or '.join(accepted)}")
    return given
