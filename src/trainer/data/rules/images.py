"""Image parts: refused where no vision model can be trained, held against the published limits elsewhere."""

import re
from typing import Any

from trainer.data.quoting import quoted
from trainer.data.rules.findings import FindingList

# learn.microsoft.com, "Fine-tune a model with image data"; the page says 64 images in one place and 10 in another.
MAX_IMAGES = 64
MAX_IMAGE_BYTES = 10 * 10**6
_DATA_URL = re.compile(r"data:image/(?:jpeg|jpg|png|webp);base64,")


def check_images(parts: list[Any], role: str, index: int, findings: FindingList) -> None:
    """Check the image parts of one message."""
    images = [i for i, part in enumerate(parts) if type(part) is dict and part.get("type") == "image_url"]
    where = f"messages[{index}].content"
    if findings.backend != "openai":
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
