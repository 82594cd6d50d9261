"""The base model: where it is found, how it is loaded, its tokenizer and its adapter."""

import os

# Torch reads it once, at its first tensor: large ones on a CPU get pages of 2 MB, where Linux has them to give. Faults
# of smaller pages take 5 % of a step.
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
# Transformers reads it when it is imported: without torch it warns that there are no models, which a command that needs
# none has no use for.
os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
