"""The rules of one message: its role, its keys, its content and its weight."""

import re
from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any

from trainer.data.quoting import quoted
from trainer.data.rules.findings import FindingList
from trainer.data.rules.keys import check_keys
from trainer.data.rules.thoughts import check_thought
from trainer.kinds import is_service

# learn.microsoft.com, "Fine-tune a model with image data"; the page says 64 images in one place and 10 in another.
MAX_IMAGES = 64
MAX_IMAGE_BYTES = 10 * 10**6
_DATA_URL = re.compile(r"data:image/(?:jpeg|jpg|png|webp);base64,")
_ALL_ROLES = ("role", "content", "name")
_WRITTEN_KEYS = {
    "system": _ALL_ROLES,
    "developer": _ALL_ROLES,
    "user": _ALL_ROLES,
    "assistant": (*_ALL_ROLES, "reasoning_content", "weight", "tool_calls", "function_call", "refusal"),
    "tool": (*_ALL_ROLES, "tool_call_id"),
    "function": _ALL_ROLES,
}
KEYS_OF_ROLE = {role: frozenset(keys) for role, keys in _WRITTEN_KEYS.items()}
MESSAGE_KEYS = frozenset().union(*KEYS_OF_ROLE.values())
ROLES = ["system", "developer", "user", "assistant", "tool"]
_ROLES_IN_WORDS = "system, developer, user, assistant or tool"
_PART_KEYS = frozenset({"type", "text"})


def is_trained(message: Mapping[str, Any]) -> bool:
    """True of an assistant message as written whose weight is not 0; in a preference row its place decides, too."""
    return message.get("role") == "assistant" and message.get("weight", 1) != 0


def check_message(message: Any, index: int, findings: FindingList) -> str | None:
    """The role of the message, None where it cannot be known."""
    if type(message) is not dict:
        accepted = "an object with role and content"
        findings.add("MESSAGES", f"messages[{index}]", f"is {quoted(message)}", accepted, "write it as an object")
        return None
    role = message.get("role")
    if len(message) == 2 and _is_plain(role, message.get("content")):
        return str(role)
    keys_known = message.keys() <= MESSAGE_KEYS or _check_keys(message, role, index, findings)
    if type(role) is not str or role not in KEYS_OF_ROLE:
        if keys_known or "role" in message:
            _note_role(message, index, findings)
        return None
    if not KEYS_OF_ROLE[role] >= message.keys():
        _note_misplaced_keys(message, role, index, findings)
    if "content" in message or keys_known:
        _check_content(message, role, index, findings)
    if role == "assistant":
        check_thought(message, index, findings)
    if len(message) > 2:
        _check_values(message, role, index, findings)
    return role


def _is_plain(role: object, content: object) -> bool:
    """True if there is nothing to check: most messages have a role and a text and nothing else."""
    if type(role) is not str or role not in KEYS_OF_ROLE or type(content) is not str:
        return False
    return bool(content) and not content.isspace() and "<think>" not in content


def _check_keys(message: Mapping[str, Any], role: object, index: int, findings: FindingList) -> bool:
    named = _WRITTEN_KEYS.get(role, _ALL_ROLES) if isinstance(role, str) else _ALL_ROLES
    return check_keys(message, MESSAGE_KEYS, f"messages[{index}]", findings, named)


def _note_role(message: Mapping[str, Any], index: int, findings: FindingList) -> None:
    if "role" not in message:
        findings.add("ROLE", f"messages[{index}]", "has no role", _ROLES_IN_WORDS, "add it")
        return
    role = message["role"]
    meant = get_close_matches(role.strip().lower()[:64], ROLES, n=1) if type(role) is str else []
    fix = f"did you mean {meant[0]!r}?" if meant else None
    findings.add("ROLE", f"messages[{index}].role", f"is {quoted(role)}", _ROLES_IN_WORDS, fix)


def _note_misplaced_keys(message: Mapping[str, Any], role: str, index: int, findings: FindingList) -> None:
    for key in message:
        if key in MESSAGE_KEYS and key not in KEYS_OF_ROLE[role]:
            code = "WEIGHT" if key == "weight" else "KEY_FOR_ROLE"
            owner = "tool" if key == "tool_call_id" else "assistant"
            accepted = f"{key} in {owner} messages only"
            fix = "remove it" if key == "weight" else None
            findings.add(code, f"messages[{index}]", f"has {key} in {_a(role)} message", accepted, fix)


def _check_content(message: Mapping[str, Any], role: str, index: int, findings: FindingList) -> None:
    content = message.get("content")
    where = f"messages[{index}].content"
    if type(content) is str:
        if not content or content.isspace():
            _note_empty(content, message, role, where, findings)
    elif type(content) is list:
        _check_parts(content, message, role, index, findings)
    elif content is not None:
        findings.add("CONTENT", where, f"is {quoted(content)}", "a string or a list of text parts")
    elif not calls_something(message):
        found = "is null" if "content" in message else "is absent"
        accepted = "a string" if role != "assistant" else "a string, as the message calls no tools"
        findings.add("CONTENT", where, found, accepted)


def calls_something(message: Mapping[str, Any]) -> bool:
    """True if the message is written as a call, well-formed or not."""
    return "tool_calls" in message or message.get("function_call") is not None


def _note_empty(text: str, message: Mapping[str, Any], role: str, where: str, findings: FindingList) -> None:
    found = "is only white space" if text else "is empty"
    if role == "assistant" and not calls_something(message):
        findings.add("EMPTY_ANSWER", where, found, "the text of an answer")
    elif role == "user":
        findings.add("EMPTY_QUESTION", where, found, "text")


def _check_parts(parts: list[Any], message: Mapping[str, Any], role: str, index: int, findings: FindingList) -> None:
    where = f"messages[{index}].content"
    if not parts:
        findings.add("CONTENT", where, "is an empty list", "a string or a list of text parts")
        return
    others = [(i, part) for i, part in enumerate(parts) if type(part) is not dict or part.get("type") != "image_url"]
    has_images = len(others) < len(parts)
    if has_images:
        _check_images(parts, role, index, findings)
    sound = [_check_part(part, f"{where}[{i}]", findings) for i, part in others]
    if all(sound) and not has_images and not (text := "".join(part["text"] for part in parts)).strip():
        _note_empty(text, message, role, where, findings)


def _check_part(part: Any, where: str, findings: FindingList) -> bool:
    if type(part) is not dict:
        findings.add("CONTENT", where, f"is {quoted(part)}", "an object {type: text, text}")
    elif part.get("type") != "text":
        found = f"is {quoted(part['type'])}" if "type" in part else "is absent"
        findings.add("CONTENT", f"{where}.type", found, "'text'", "write the part as text")
    elif type(part.get("text")) is not str:
        found = f"is {quoted(part['text'])}" if "text" in part else "is absent"
        findings.add("CONTENT", f"{where}.text", found, "a string")
    else:
        return check_keys(part, _PART_KEYS, where, findings)
    return False


def _check_values(message: Mapping[str, Any], role: str, index: int, findings: FindingList) -> None:
    where = f"messages[{index}]"
    if "name" in message and (type(message["name"]) is not str or not message["name"].strip()):
        findings.add("NAME", f"{where}.name", f"is {quoted(message['name'])}", "a non-empty string", "remove it")
    if role == "assistant":
        weight = message.get("weight", 1)
        if type(weight) is not int or weight not in (0, 1):
            findings.add("WEIGHT", f"{where}.weight", f"is {quoted(weight)}", "0 or 1")
        if type(message.get("refusal", "")) not in (str, type(None)):
            findings.add("REFUSAL", f"{where}.refusal", f"is {quoted(message['refusal'])}", "a string or null")


def _a(role: str) -> str:
    return f"an {role}" if role[0] == "a" else f"a {role}"


def _check_images(parts: list[Any], role: str, index: int, findings: FindingList) -> None:
    """Check the image parts of one message."""
    images = [i for i, part in enumerate(parts) if type(part) is dict and part.get("type") == "image_url"]
    where = f"messages[{index}].content"
    if not is_service(findings.backend):
        findings.add("IMAGE", f"{where}[{images[0]}]", "is an image", "text")
    elif role != "user":
        found = f"is an image in a message of the role {role!r}"
        findings.add("IMAGE_LIMIT", f"{where}[{images[0]}]", found, "images in user messages only", "move it")
    elif len(images) > MAX_IMAGES:
        findings.add("IMAGE_LIMIT", where, f"holds {len(images)} images", f"at most {MAX_IMAGES}", "remove some")
    else:
        for i in images:
            _check_image(parts[i], f"{where}[{i}].image_url", findings)


def _check_image(part: dict[str, Any], where: str, findings: FindingList) -> None:
    image = part.get("image_url")
    url = image.get("url") if type(image) is dict else None
    if type(image) is not dict or type(url) is not str:
        findings.add("IMAGE_LIMIT", where, "has no url", "an object {url, detail}", "write the image's URL")
    elif image.get("detail", "auto") not in ("auto", "low", "high"):
        found = f"is {quoted(image['detail'])}"
        findings.add("IMAGE_LIMIT", f"{where}.detail", found, "auto, low or high", "correct or remove it")
    elif not url.startswith(("http://", "https://")) and not _DATA_URL.match(url):
        accepted = "an http(s) URL, or a data URL of a JPEG, PNG or WEBP image in base64"
        findings.add("IMAGE_LIMIT", f"{where}.url", f"is {quoted(url)}", accepted)
    elif url.startswith("data:") and (num_bytes := (len(url) - url.index(",") - 1) * 3 // 4) > MAX_IMAGE_BYTES:
        accepted = f"at most {MAX_IMAGE_BYTES}"
        findings.add("IMAGE_LIMIT", f"{where}.url", f"holds an image of {num_bytes} bytes", accepted, "shrink it")
