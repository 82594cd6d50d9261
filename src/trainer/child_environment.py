"""Environment of a child process: the part of this one's that it gets."""

import os
from pathlib import Path

import trainer

OWN_ROOT = str(Path(trainer.__file__).parents[1])

# All that a process that renders or asks git needs: to find programs and libraries, files and its language.
_HARMLESS = frozenset(
    {
        "PATH", "HOME", "USER", "LOGNAME", "LANG", "LANGUAGE", "TZ", "TMPDIR", "TMP", "TEMP", "SYSTEMROOT",
        "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "VIRTUAL_ENV", "PYTHONHOME", "PYTHONPATH", "PYTHONHASHSEED",
        "PYTHONUTF8", "OMP_NUM_THREADS", "TOKENIZERS_PARALLELISM", "RAYON_NUM_THREADS",
    }
)  # fmt: skip
# Keys to what no training and no serving on this machine speaks to.
_FOREIGN_KEYS = frozenset({"OPENAI_API_KEY", "AZURE_OPENAI_API_KEY", "AZURE_OPENAI_AD_TOKEN", "TRAINER_API_KEY"})


def harmless_environment(**more: str) -> dict[str, str]:
    """For a process that runs what came with a model or with data: no key and no token, whatever its name.

    This package may lie beside a script and not be installed: the new process finds it through PYTHONPATH.
    """
    environment = {name: value for name, value in os.environ.items() if name in _HARMLESS or name.startswith("LC_")}
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [OWN_ROOT, environment.get("PYTHONPATH")]))
    return environment | more


def training_environment(**more: str) -> dict[str, str]:
    """For a process that trains or serves: settings of devices, networks, hubs and trackers have many names, so all but
    the keys of services that it does not use.
    """
    return {name: value for name, value in os.environ.items() if name not in _FOREIGN_KEYS} | more
