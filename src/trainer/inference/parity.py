"""Distance of another form of a trained model from the trained one, and the bounds for it.

Both read the same rows. At every supervised token their distributions are compared (Kullback-Leibler divergence, in
nats), and both continue the rows' prompts by the most likely token. The trained model is the base as it was trained
on, quantized where it was, with its adapter on.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from trainer.inference.probes import Probe

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

GREEDY_TOKENS = 32
KEPT_CHANGE = 0.5  # drift of more than half of what was learned is no longer what was learned


@dataclass(frozen=True, slots=True)
class Bounds:
    """Largest differences that are accepted."""

    mean_kl: float  # nats a token
    greedy_gap: float | None  # nats: answers may part only where the trained model finds both tokens this close
    loss: float  # nats a token by which the validation loss may rise
    recorded_loss: float  # between the trained model's validation loss when it was trained and now

    def accepting(self, max_drift: float | None, loss: float | None) -> "Bounds":
        """Replace by the user's bounds. Drift is the loss on the trained model's own answers, so `loss` is for both."""
        bounds = self
        if loss is not None:
            bounds = Bounds(max(self.mean_kl, loss), None, loss, max(self.recorded_loss, loss))
        return bounds if max_drift is None else replace(bounds, mean_kl=max_drift)


# The drift of merged models, on builtin:tiny and on SmolLM2-135M-Instruct after 66 steps on the glossary:
#   float32               2e-8, tiny
#   nf4, int8 in float32  1e-4, 3e-4, tiny; an nf4 run merged into the unquantized base 9e-3
#   bfloat16              2.0e-3, loss -0.008. Rounded weights account for 9e-5 and +0.002, computing in bfloat16 for
#                         the rest: the run itself in float32 is 1.3e-3 away from the run in bfloat16
#   rounded to nearest    8.2e-3, loss +0.054
#   float32 to bfloat16   1.2e-3, loss +0.001, after 6 steps
# A forgotten adapter is 1.3 to 1.7 away.
EXACT = Bounds(mean_kl=1e-6, greedy_gap=0.01, loss=1e-4, recorded_loss=1e-4)
QUANTIZED = Bounds(mean_kl=2e-3, greedy_gap=0.5, loss=0.02, recorded_loss=0.02)
ROUNDED = Bounds(mean_kl=5e-3, greedy_gap=0.5, loss=0.03, recorded_loss=0.03)


@dataclass(frozen=True, slots=True)
class Observation:
    """Output of a model on the probes: log-probabilities as float32 [S, V] a probe, and its greedy answers."""

    logprobs: "list[Tensor]"
    answers: list[list[int]]
    answer_logprobs: "list[Tensor]"  # float32 [T, V] a probe: one row a greedy token


@dataclass(frozen=True, slots=True)
class Drift:
    """The difference of a model from the trained one."""

    num_tokens: int
    mean_kl: float
    max_kl: float
    max_logprob_change: float
    num_same_choice: int  # of num_tokens: the most likely token is the same
    num_answers: int
    num_same_answers: int  # greedy, up to GREEDY_TOKENS tokens
    greedy_gap: float  # the widest gap, in the trained model, between its token and the other's where answers part

    @property
    def same_answers(self) -> float:
        """Share of the greedy answers."""
        return self.num_same_answers / self.num_answers

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    def problems(self, bounds: Bounds, change: "Drift") -> list[str]:
        """Differences beyond the bounds. `change`: the distance of the base without adapter from the trained model."""
        found = []
        if not self.mean_kl <= bounds.mean_kl:  # also where it is NaN
            found.append(f"drift is {self.mean_kl:.2e} nats a token, expected at most {bounds.mean_kl:.2g}")
        if not self.mean_kl <= KEPT_CHANGE * change.mean_kl:
            found.append(
                f"drift is {self.mean_kl:.2e} nats a token where the fine-tuning changed {change.mean_kl:.2e}, "
                f"expected at most {KEPT_CHANGE:.0%} of that"
            )
        if bounds.greedy_gap is not None and not self.greedy_gap <= bounds.greedy_gap:
            found.append(
                f"{self.num_answers - self.num_same_answers} of {self.num_answers} greedy answers differ, one by a "
                f"token that is {self.greedy_gap:.2f} nats less likely, expected at most {bounds.greedy_gap}"
            )
        return found


def observe(model: "PreTrainedModel", probes: Sequence[Probe], stops: Sequence[int]) -> Observation:
    """Read all probes and answer them. Generation ends at one of `stops`."""
    import torch

    with torch.inference_mode():
        answered = [_greedy(model, probe, stops) for probe in probes]
        return Observation(
            [_logprobs(model, probe) for probe in probes],
            [tokens for tokens, _ in answered],
            [logprobs for _, logprobs in answered],
        )


def drift(trained: Observation, other: Observation) -> Drift:
    """Measure the distance of `other` from `trained`."""
    import torch

    pairs = list(zip(trained.logprobs, other.logprobs, strict=True))
    kl = torch.cat([(p.double().exp() * (p.double() - q.double())).sum(dim=-1) for p, q in pairs])
    same = torch.cat([p.argmax(dim=-1) == q.argmax(dim=-1) for p, q in pairs])
    answers = list(zip(trained.answers, other.answers, trained.answer_logprobs, strict=True))
    return Drift(
        num_tokens=len(kl),
        mean_kl=max(float(kl.mean()), 0.0) if kl.isfinite().all() else float("nan"),
        max_kl=float(kl.max()),
        max_logprob_change=max(float((p - q).abs().max()) for p, q in pairs),
        num_same_choice=int(same.sum()),
        num_answers=len(answers),
        num_same_answers=sum(mine == others for mine, others, _ in answers),
        greedy_gap=max(_gap(*answer) for answer in answers),
    )


def _gap(mine: Sequence[int], others: Sequence[int], logprobs: "Tensor") -> float:
    """Nats by which the trained model prefers its own token where the answers part; 0 if they do not."""
    for at, (token, other) in enumerate(zip(mine, others, strict=False)):
        if token != other:
            return float(logprobs[at, token] - logprobs[at, other])
    return 0.0


def _logprobs(model: "PreTrainedModel", probe: Probe) -> "Tensor":
    import torch

    positions = torch.tensor(probe.positions, device=model.device)
    input_ids = torch.tensor([probe.ids], device=model.device)
    output = model(input_ids=input_ids, logits_to_keep=positions, use_cache=False)
    return torch.log_softmax(output.logits[0].float(), dim=-1).cpu()


def _greedy(model: "PreTrainedModel", probe: Probe, stops: Sequence[int]) -> "tuple[list[int], Tensor]":
    import torch
    from transformers import GenerationConfig

    input_ids = torch.tensor([probe.prompt], device=model.device)
    greedy = GenerationConfig(
        do_sample=False,
        max_new_tokens=GREEDY_TOKENS,
        eos_token_id=list(stops),
        pad_token_id=stops[0],
        output_logits=True,
        return_dict_in_generate=True,
    )
    output = model.generate(input_ids=input_ids, attention_mask=torch.ones_like(input_ids), generation_config=greedy)
    logprobs = torch.log_softmax(torch.cat(output.logits).float(), dim=-1).cpu()
    return output.sequences[0, len(probe.prompt) :].tolist(), logprobs
