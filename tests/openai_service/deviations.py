"""Where a flavour is known not to be as the OpenAPI document has it; everything else is a finding."""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from tests.openai_service.contract import Finding
from tests.openai_service.state import Flavour


@dataclass(frozen=True)
class Deviation:
    """Patterns of a finding's three parts, and where this deviation is known from."""

    flavours: tuple[Flavour, ...]
    operation: str
    place: str
    message: str
    why: str

    def covers(self, flavour: Flavour, finding: Finding) -> bool:
        parts = ((self.operation, finding.operation), (self.place, finding.place), (self.message, finding.message))
        return flavour in self.flavours and all(re.search(pattern, text) for pattern, text in parts)


BOTH: tuple[Flavour, ...] = ("openai", "azure")
AZURE: tuple[Flavour, ...] = ("azure",)
STATUS = "answer (.*)?status$|sdk (.*)?status$"
DEVIATIONS = (
    Deviation(BOTH, "content$", "answer", "octet-stream", "the document calls a file's content a JSON string"),
    Deviation(BOTH, "/jobs", STATUS, "paus|Input should be", "the documentation has pausing and paused, the enum not"),
    Deviation(AZURE, "/jobs", STATUS, "'pending'|Input should be", "jobs wait as pending"),
    Deviation(AZURE, "POST /(files|uploads|fine_tuning/jobs)$", "status", "201, expected 200", "what is made is 201"),
    Deviation(AZURE, "/(files|complete)", STATUS, "'(pending|running)'|Input should be", "files are processed later"),
    Deviation(AZURE, "/(files|complete)", "status_details$", "None", "absent fields are null"),
    Deviation(AZURE, "/jobs", "organization_id$", "None|valid string", "absent fields are null"),
    Deviation(AZURE, "/jobs", "result_files$", "None|valid list", "absent fields are null"),
    Deviation(AZURE, "/events$", "data$", "None", "absent fields are null"),
    Deviation(AZURE, "/jobs", "answer .*error$", "'code'", "a job's error has no param"),
    Deviation(AZURE, "GET /files$", "answer", "(first_id|last_id|has_more)", "files are listed all at once"),
    Deviation(AZURE, "/models", "answer|sdk", "created|owned_by|Field required", "models have fields of Azure's own"),
    Deviation(AZURE, "import|DELETE /fine_tuning/jobs/", "path", "not in the document", "operations of Azure's own"),
    Deviation(AZURE, "POST /fine_tuning/jobs$", "request hyperparameters", "^-1", "-1 is a dated version's auto"),
    Deviation(AZURE, "", r"request \?api-version", "not in the document", "dated versions of the API"),
    Deviation(AZURE, "DELETE /files", "status", "204", "a deleted file has no answer in dated versions"),
    Deviation(AZURE, "/deployments/", "path", "not in the document", "dated versions name the deployment in the path"),
)


def unexplained(flavour: Flavour, findings: Iterable[Finding]) -> list[Finding]:
    """The findings that no known deviation covers."""
    return sorted({f for f in findings if not any(known.covers(flavour, f) for known in DEVIATIONS)})


def unseen(findings: dict[Flavour, list[Finding]]) -> list[Deviation]:
    """The known deviations that did not occur: the list would be longer than the truth."""
    return [
        known for known in DEVIATIONS
        if not any(known.covers(flavour, f) for flavour in known.flavours for f in findings[flavour])
    ]  # fmt: skip
