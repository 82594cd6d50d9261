"""Forward pass of a pack: the rows that may share tokens, and the sums whose gradient trains the adapter."""

import dataclasses
from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from trainer.data.pack.packing import Pack, make_packs
from trainer.data.pack.pairs import Answers, PairPacks, make_answer_packs, make_pair_packs
from trainer.data.render.rendering import IGNORE_INDEX, Example
from trainer.errors import quoted
from trainer.model import flex, tree_attention
from trainer.model.adapter import trainable
from trainer.model.checkpointing import recomputable, recompute
from trainer.model.device import send
from trainer.model.expert_layers import use_lora_experts
from trainer.model.lora_linear import use_lora_linear
from trainer.model.rms_norm import use_lean_norms
from trainer.model.sharding import is_sharded, start_over
from trainer.model.sharing import UNSHARED, sharing_of
from trainer.training.loss import Scores, Sums, find_head, head_scores, logit_scores
from trainer.training.ranks import Ranks

if TYPE_CHECKING:
    from peft import PeftModel

TOLERANCE = {torch.float64: 1e-5, torch.float32: 1e-4}  # of a probe; 16 bits round by more
TOLERANCE_16_BITS = 0.05
PROBE_TOKENS, PROBE_REST = 24, 11  # what two of its rows share, and the most that a row has beside that


class Engine:
    """Packs examples for one model and computes their sums. `notes` say what is not shared, and why."""

    def __init__(
        self,
        model: "PeftModel",
        device: torch.device,
        ranks: Ranks | None = None,
        kind: tree_attention.Kind | None = None,
    ) -> None:
        """`kind` of attention: by default the fastest that model and device have."""
        self.model, self.device, self.ranks = model.get_base_model(), device, ranks or Ranks()
        self.decoder = self.model.base_model
        use_lora_linear(model)
        use_lora_experts(model)
        if not is_sharded(self.model):  # else it was done while the weights were whole
            use_lean_norms(self.model)
        self.kind = kind or tree_attention.kind_for(self.model, device)
        self.head = find_head(self.model)
        self.sharing, note = sharing_of(self.model)
        self.notes = [note] if note else []
        training = self.model.training
        self.model.eval()
        self._probe()
        self.model.train(training)

    @property
    def num_recomputable(self) -> int:
        return len(recomputable(self.model))

    def recompute(self, num_layers: int) -> None:
        """Keep nothing of the first `num_layers` layers for the backward pass, which then computes them again."""
        recompute(self.model, num_layers)

    def packs(self, examples: Sequence[Example], token_budget: int) -> list[Pack]:
        """Cut the examples of a step into packs."""
        return make_packs(examples, token_budget, self.sharing)

    def pair_packs(self, pairs: Sequence[Answers], token_budget: int) -> PairPacks:
        """Cut the pairs of a step into packs."""
        return make_pair_packs(pairs, token_budget, self.sharing)

    def answer_packs(self, pairs: Sequence[Answers], token_budget: int) -> list[Pack]:
        """Cut the answers of pairs that are only read into packs."""
        return make_answer_packs(pairs, token_budget, self.sharing)

    @cached_property
    def idle(self) -> Pack:
        """A pack that adds nothing: for a process with none left, where others need its part of each layer."""
        (pack,) = make_packs(_probe_examples(PROBE_TOKENS)[-1:], 1, self.sharing)
        return dataclasses.replace(pack, weight=torch.zeros_like(pack.weight))

    def sums(self, pack: Pack) -> Sums:
        """Forward one pack."""
        return self.scores(pack).sums(self._here(pack.weight))

    def scores(self, pack: Pack) -> Scores:
        """Forward one pack; each of its scored tokens."""
        if pack is not self.idle:
            return self._scores(pack)
        training = self.model.training
        self.model.eval()  # dropout would draw random numbers, and those of the other packs be different ones
        scores = self._scores(pack)
        self.model.train(training)
        return scores

    def _scores(self, pack: Pack) -> Scores:
        target = self._here(pack.target)
        if self.head is not None:
            return head_scores(self.head, self._hidden(pack), target)
        return logit_scores(self._model_logits(pack), target)

    def _hidden(self, pack: Pack) -> Tensor:
        """Hidden states that the head reads, at the supervised positions [S, H]."""
        row, column = map(self._here, _places(pack))
        hidden: Tensor = self.decoder(**self._inputs(pack), use_cache=False).last_hidden_state
        return hidden[row, column]

    def _model_logits(self, pack: Pack) -> Tensor:
        """The model's own logits at the supervised positions [S, V]."""
        row, column = _places(pack)
        kept, column = torch.unique(column, return_inverse=True)
        output = self.model(**self._inputs(pack), use_cache=False, logits_to_keep=self._here(kept))
        logits: Tensor = output.logits
        return logits[self._here(row), self._here(column)]

    def _inputs(self, pack: Pack) -> dict[str, Any]:
        """A trie is one long row [1, U] with its own rule of sight; unshared rows are padded to [B, T]."""
        if self.sharing.alone_over is not None:
            _forget_lengths(self.decoder)
        if pack.shared:
            tree = tree_attention.make_tree(pack, self.kind, self.device, self.model.dtype)
            return {
                "input_ids": self._here(pack.input_ids)[None],
                "position_ids": self._here(pack.position_ids)[None],
                # A ready mask, so that the model makes none; the one element stands for what the tree says.
                "attention_mask": tree.mask if tree.mask is not None else torch.ones(1, 1, 1, 1, device=self.device),
                "tree": tree,
            }
        rows = pack.input_ids.tensor_split((pack.position_ids == 0).nonzero()[1:, 0])
        ids = torch.nn.utils.rnn.pad_sequence(list(rows), batch_first=True)
        mask = torch.nn.utils.rnn.pad_sequence([torch.ones_like(part) for part in rows], batch_first=True)
        return {"input_ids": self._here(ids), "attention_mask": self._here(mask)}

    def _here(self, tensor: Tensor) -> Tensor:
        return send(tensor, self.device)

    def _probe(self) -> None:
        """Compare our head with the model's, and a small trie with its rows alone: what differs is not used."""
        length = 2 * flex.BLOCK if self.kind == "flex" else PROBE_TOKENS  # a smaller trie would not reach its kernels
        examples = _probe_examples(min(length, (self.sharing.longest or length + PROBE_REST) - PROBE_REST))
        rows, trie = make_packs(examples, 1, UNSHARED), make_packs(examples, 10_000)
        alone = torch.cat([self._hidden(pack) for pack in rows])
        logits = torch.cat([self._model_logits(pack) for pack in rows])
        if self.head is not None and not self._all_agree(self.head.logits(alone), logits):
            self.head = None
        if self.sharing == UNSHARED:
            return
        own_attention = self.model.config._attn_implementation
        self.model.set_attn_implementation(tree_attention.implementation(self.kind))
        problem = self._flex_problem(trie, rows) if self.kind == "flex" else None
        if self.ranks.any(problem is not None):
            self.kind, problem = "dense", problem or "does not run in another process"
            self.notes.append(f"attention goes through a dense mask, which is slower: FlexAttention {problem}")
        if not self._all_agree(torch.cat([self._hidden(pack) for pack in trie]), alone):
            self.model.set_attn_implementation(own_attention)
            self.sharing = UNSHARED
            self.notes.append("rows share no tokens: this model computes something else from shared ones")

    def _flex_problem(self, trie: Sequence[Pack], rows: Sequence[Pack]) -> str | None:
        """Build its kernels in both directions: whether they can be, and have the gradient of the rows alone."""
        try:
            found = self._gradient(trie)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:  # no compiler on this machine, or a shape that no kernel fits
            start_over(self.model)
            return f"does not run here ({quoted(str(error), 200)})"
        return None if self._agree(found, self._gradient(rows)) else "has another gradient here"

    def _gradient(self, packs: Sequence[Pack]) -> Tensor:
        """The adapter's gradient [1, parameters] of the summed loss of `packs`; nothing of it is left."""
        parameters = list(trainable(self.model).values())
        nll = sum((self.sums(pack).nll for pack in packs), torch.zeros((), device=self.device))
        if not nll.requires_grad:
            return nll[None, None]
        return torch.cat([part.flatten() for part in torch.autograd.grad(nll, parameters, materialize_grads=True)])[
            None
        ]

    def _all_agree(self, found: Tensor, expected: Tensor) -> bool:
        """True where they are the same in every process: all must then do the same."""
        return not self.ranks.any(not self._agree(found, expected))

    def _agree(self, found: Tensor, expected: Tensor) -> bool:
        """True where every row is the same up to the rounding of the model's number format."""
        difference = (found - expected).double().norm(dim=-1) / expected.double().norm(dim=-1)
        return bool((difference <= TOLERANCE.get(self.model.dtype, TOLERANCE_16_BITS)).all())


def _forget_lengths(model: torch.nn.Module) -> None:
    """A dynamic RoPE keeps the frequencies of the longest row it saw; each row shall get those of its own length."""
    for module in model.modules():
        if hasattr(module, "max_seq_len_cached"):
            module.max_seq_len_cached = 0  # type: ignore[assignment]  # a plain number


def _places(pack: Pack) -> tuple[Tensor, Tensor]:
    """Row and column of each supervised position [S] in the model's input."""
    if pack.shared:
        return torch.zeros_like(pack.position), pack.position
    row = (pack.position_ids == 0).cumsum(0) - 1
    return row[pack.position], pack.position_ids[pack.position]


def _probe_examples(length: int) -> list[Example]:
    """Two rows that share `length` tokens and one that shares none; in order, and ever shorter."""
    tokens = [3 + 7 * number % 89 for number in range(length)]
    rows = [[2, *tokens, 4, *tokens[:9]], [2, *tokens, 5, *tokens[5:11]], [3, *tokens[2:20]]]
    return [Example(tuple(row), (IGNORE_INDEX,) * (len(row) - 4) + tuple(row[-4:])) for row in rows]
