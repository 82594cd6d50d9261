"""The default images: the build of torch that azureml/environment names, and the files that they are built from."""

import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from trainer.backends.azureml import gpu_check
from trainer.backends.azureml.machines import Machine
from trainer.backends.azureml.snapshot import own_files

GPU_CHECK = "gpu_check.py"  # this package's own, which vLLM's container has no other file of
CONTEXTS = {
    "score": ("Dockerfile", "requirements.txt", "torch-*.txt"),
    "vllm": ("vllm/Dockerfile", "vllm/start.py", GPU_CHECK),
}
BUILD_FAILED = "imagebuildfailure"
PULLS_LIMITED = ("toomanyrequests", "too many requests", "pull rate limit")  # a registry's words
FILL = re.compile(r"^ARG (TORCH_BUILD|TORCH_INDEX)$", re.MULTILINE)
VLLM = re.compile(r"^ARG VLLM_IMAGE=.*$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class TorchBuild:
    """Torch in the default image. `kernels`: the compute capabilities of the GPUs that it has code for."""

    name: str
    kernels: tuple[str, ...]

    def runs_on(self, capability: str) -> bool:
        """True where it has code for a GPU: of the GPU's minor version, or of a lower one of the same major."""
        major, _, minor = capability.partition(".")
        known = (kernel.partition(".") for kernel in self.kernels)
        return any(its_major == major and int(its_minor) <= int(minor) for its_major, _, its_minor in known)


def default_build() -> TorchBuild:
    """The one that azureml/environment builds where nobody names another."""
    return torch_build(_argument("TORCH_BUILD"))


def torch_build(name: str) -> TorchBuild:
    """A build by the head of its file."""
    head = (_environment() / f"torch-{name}.txt").read_text(encoding="utf-8").splitlines()[0]
    return TorchBuild(name, tuple(head.partition("GPU kernels:")[2].split()))


def builds() -> list[TorchBuild]:
    """All that azureml/environment has a file of, oldest CUDA first."""
    return [torch_build(path.stem.removeprefix("torch-")) for path in sorted(_environment().glob("torch-*.txt"))]


def lacking_kernels(setting: str, machine: Machine, way_out: str) -> list[str]:
    """The problem of a GPU that the default image's torch has no code for. `way_out`: to an image that has."""
    default, gpu = default_build(), machine.gpu
    if default.runs_on(gpu.capability):
        return []
    problem = (
        f"{setting}: {machine.name} has the GPU {gpu.name}, for which torch's build {default.name} of the default "
        f"image has no code, expected an image with another build; {way_out}, or choose another size"
    )
    return [problem]


def with_advice(reason: str) -> str:
    """The service's reason of a failure, with the way out where the building of an image failed."""
    if BUILD_FAILED not in reason.lower():
        return reason
    advice = "docs/azureml.md says what to do by the last lines of the build's log"
    if any(word in reason.lower() for word in PULLS_LIMITED):
        advice = "Docker Hub limits anonymous pulls: name a copy of the image in azureml.deployment.vllm_image"
    return f"{reason}; {advice}"


def own_image(machine: Machine) -> str:
    """The way to a job's image with a build that has code for the GPU of a machine."""
    fitting = " or ".join(build.name for build in builds() if build.runs_on(machine.gpu.capability))
    named = f" with TORCH_BUILD={fitting}" if fitting else ""
    return f"build it{named} and name it in azureml.environment, as docs/azureml.md says"


def stage_context(mode: str, folder: Path, vllm_image: str | None = None) -> None:
    """The Docker context of a deployment's mode: the files that its Dockerfile copies, and nothing else.

    Azure ML passes no build arguments: those of the scoring image are filled in from the job's, and `vllm_image` is
    written in place of Docker Hub's.
    """
    folder.mkdir(parents=True)
    for name in CONTEXTS[mode]:
        for source in _sources(name):
            shutil.copyfile(source, folder / source.name)
    dockerfile = folder / "Dockerfile"
    text = FILL.sub(lambda found: f"ARG {found[1]}={_argument(found[1])}", dockerfile.read_text(encoding="utf-8"))
    if vllm_image is not None:
        text = VLLM.sub(f"ARG VLLM_IMAGE={vllm_image}", text)
    dockerfile.write_text(text, encoding="utf-8")


def _sources(name: str) -> list[Path]:
    if name == GPU_CHECK:
        return [Path(gpu_check.__file__)]
    if "*" in name:
        return sorted(_environment().glob(name))
    return [own_files() / "serving" / name]


def _environment() -> Path:
    return own_files() / "environment"


def _argument(name: str) -> str:
    """The default of a build argument of the job's image."""
    text = (_environment() / "Dockerfile").read_text(encoding="utf-8")
    found = re.search(rf"^ARG {name}=(\S+)$", text, re.MULTILINE)
    assert found is not None, name
    return found[1]
