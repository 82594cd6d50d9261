"""Families of chat models: their published chat templates with tiny tokenizers that hold their special tokens.

Most templates are read from TRL, which ships them as their makers publish them. The others are written in
tests/chat_templates after the published format; each file names its source. The flags of the special tokens are those
of the published tokenizers, since they decide what is a control token and who eats the white space beside it.
"""

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

OWN_TEMPLATES = Path(__file__).with_name("chat_templates")


@dataclass(frozen=True)
class Family:
    """`plain` are added tokens that are not special; `trims` says on which sides special tokens eat white space."""

    template: str  # the name of TRL's file, or of ours
    special: Sequence[str]
    plain: Sequence[str] = ()
    bos: str | None = None
    eos: str | None = None
    adds_bos: bool = False  # whether the tokenizer by itself would write one more
    trims: Literal["", "right", "both"] = ""
    pieces: Literal["bytes", "gpt-2", "first ▁", "every ▁", "▁"] = "bytes"  # byte-level, or SentencePiece's ways
    pad: str | None = None

    @property
    def own(self) -> bool:
        return (OWN_TEMPLATES / f"{self.template}.jinja").exists()

    @property
    def source(self) -> str:
        if self.own:
            return (OWN_TEMPLATES / f"{self.template}.jinja").read_text(encoding="utf-8")
        import trl

        return (Path(trl.__file__).parent / "chat_templates" / f"{self.template}.jinja").read_text(encoding="utf-8")


_LLAMA = [
    "<|begin_of_text|>",
    "<|end_of_text|>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<|eom_id|>",
    "<|eot_id|>",
]
_CHATML = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
_THINK = ["<think>", "</think>"]
_CALL = ["<tool_call>", "</tool_call>"]
_MISTRAL = ["<unk>", "<s>", "</s>", "[INST]", "[/INST]", "[TOOL_CALLS]", "[TOOL_RESULTS]", "[/TOOL_RESULTS]"]
_MISTRAL += ["[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]"]
_GEMMA = ["<pad>", "<eos>", "<bos>", "<unk>", "<start_of_turn>", "<end_of_turn>"]
# Of Gemma's added tokens 6,405 of 6,415 are not special: line breaks, spaces, tabs and what HTML is written with.
_GEMMA_TEXT = ["\n", "\n\n", "\n\n\n", "▁▁", "▁▁▁▁", "\t", "\t\t", "<b>", "</b>", "<table>", "[multimodal]"]
_GEMMA4 = ["<pad>", "<eos>", "<bos>", "<unk>", "<|turn>", "<turn|>", "<|channel>", "<channel|>", "<|tool>", "<tool|>"]
_GEMMA4 += ["<|tool_call>", "<tool_call|>", "<|tool_response>", "<tool_response|>", '<|"|>', "<|think|>"]
_PHI3 = ["<unk>", "<s>", "</s>", "<|endoftext|>", "<|assistant|>", "<|system|>", "<|user|>", "<|end|>"]
_COHERE = ["<PAD>", "<BOS_TOKEN>", "<|START_OF_TURN_TOKEN|>", "<|END_OF_TURN_TOKEN|>"]
_COHERE_ROLES = ["<|USER_TOKEN|>", "<|CHATBOT_TOKEN|>", "<|SYSTEM_TOKEN|>"]
_HARMONY = ["<|startoftext|>", "<|endoftext|>", "<|return|>", "<|constrain|>", "<|channel|>", "<|start|>", "<|end|>"]
_HARMONY += ["<|message|>", "<|call|>"]
_LFM = ["<|startoftext|>", "<|im_start|>", "<|im_end|>", "<|tool_list_start|>", "<|tool_list_end|>"]
_LFM += ["<|tool_call_start|>", "<|tool_call_end|>", "<|tool_response_start|>", "<|tool_response_end|>"]
_GLM = ["<|endoftext|>", "[gMASK]", "<sop>", "<|system|>", "<|user|>", "<|assistant|>", "<|observation|>"]
_DEEPSEEK = ["<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>"]
_GRANITE = ["<|end_of_text|>", "<|start_of_role|>", "<|end_of_role|>", "<|tool_call|>"]
_DEEPSEEK_CALLS = ["<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>", "<｜tool▁call▁begin｜>", "<｜tool▁call▁end｜>"]
_DEEPSEEK_CALLS += ["<｜tool▁sep｜>", "<｜tool▁outputs▁begin｜>", "<｜tool▁outputs▁end｜>", "<｜tool▁output▁begin｜>"]
_DEEPSEEK_CALLS += ["<｜tool▁output▁end｜>"]
_MUSE = ["<|start|>", "<|message|>", "<|eom|>", "<|eot|>", "<|patch|>", "<|video|>"]
_SPACES = ["  ", "   ", "    ", "        "]

FAMILIES = {
    "llama-3.1": Family("llama3_1", _LLAMA, bos=_LLAMA[0], eos="<|eot_id|>", adds_bos=True),
    "llama-3.2": Family("llama3_2", _LLAMA, bos=_LLAMA[0], eos="<|eot_id|>", adds_bos=True),
    "qwen-2.5": Family("qwen2_5", _CHATML, _CALL, eos="<|im_end|>"),
    "qwen-3": Family("qwen3", _CHATML, _CALL + _THINK, eos="<|im_end|>"),
    "qwen-3.8": Family("qwen3_8", _CHATML, _CALL + _THINK, eos="<|im_end|>"),
    "qwen-3.5-small": Family("qwen3_5_nothink", _CHATML, _CALL + _THINK, eos="<|im_end|>"),
    "qwen-3.5": Family("qwen3_5_think", _CHATML, _CALL + _THINK, eos="<|im_end|>"),
    "phi-3": Family("phi3", _PHI3, bos="<s>", eos="<|endoftext|>", trims="right", pieces="first ▁"),
    "phi-4": Family("phi4", [*_CHATML, "<|im_sep|>"], bos="<|endoftext|>", eos="<|im_end|>", trims="both"),
    "mistral-7b-v0.1": Family(
        "mistral_v1", ["<unk>", "<s>", "</s>"], bos="<s>", eos="</s>", adds_bos=True, pieces="every ▁"
    ),
    "mistral-7b-v0.3": Family("mistral_v3", _MISTRAL, bos="<s>", eos="</s>", adds_bos=True, pieces="first ▁"),
    "mistral-nemo": Family("mistral_nemo", _MISTRAL, bos="<s>", eos="</s>", adds_bos=True),
    "mistral-small-3": Family(
        "mistral_small", [*_MISTRAL, "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]"], bos="<s>", eos="</s>", adds_bos=True
    ),
    "gemma-2": Family("gemma", _GEMMA, _GEMMA_TEXT, bos="<bos>", eos="<eos>", adds_bos=True, pieces="▁"),
    "gemma-3": Family("gemma3", _GEMMA, _GEMMA_TEXT, bos="<bos>", eos="<eos>", adds_bos=True, pieces="▁"),
    "gemma-4": Family("gemma4_v5", _GEMMA4, _GEMMA_TEXT, bos="<bos>", eos="<turn|>", adds_bos=True, pieces="▁"),
    "smollm-2": Family("smollm2", _CHATML, bos="<|im_start|>", eos="<|im_end|>", pieces="gpt-2"),
    "smollm-3": Family("smollm3", _CHATML, _THINK, eos="<|im_end|>"),
    "deepseek-r1-distill": Family(
        "deepseek_r1_distill",
        _DEEPSEEK,
        ["<｜User｜>", "<｜Assistant｜>", *_THINK],
        bos=_DEEPSEEK[0],
        eos=_DEEPSEEK[1],
        adds_bos=True,
    ),
    "deepseek-v3": Family(
        "deepseekv3",
        _DEEPSEEK,
        ["<｜User｜>", "<｜Assistant｜>", *_DEEPSEEK_CALLS, *_THINK],
        bos=_DEEPSEEK[0],
        eos=_DEEPSEEK[1],
    ),
    "deepseek-v3.1": Family(
        "deepseek_v3_1",
        _DEEPSEEK,
        ["<｜User｜>", "<｜Assistant｜>", *_THINK],
        bos=_DEEPSEEK[0],
        eos=_DEEPSEEK[1],
        adds_bos=True,
    ),
    "granite-3.3": Family("granite3", _GRANITE, bos="<|end_of_text|>", eos="<|end_of_text|>"),
    "gpt-oss": Family("gptoss", _HARMONY, bos="<|startoftext|>", eos="<|return|>"),
    "command-r": Family("cohere", _COHERE, _COHERE_ROLES, bos="<BOS_TOKEN>", eos=_COHERE[3], adds_bos=True),
    "command-a": Family(
        "cohere2",
        _COHERE,
        [*_COHERE_ROLES, "<|START_RESPONSE|>", "<|END_RESPONSE|>"],
        bos="<BOS_TOKEN>",
        eos=_COHERE[3],
        adds_bos=True,
    ),
    "lfm-2": Family("lfm2_v2", _LFM, bos="<|startoftext|>", eos="<|im_end|>", adds_bos=True),
    "lfm-2.5": Family("lfm2_2_5_v2", _LFM, _THINK, bos="<|startoftext|>", eos="<|im_end|>", adds_bos=True),
    "muse-glimmer": Family("muse_glimmer", _MUSE, eos="<|eot|>"),
    "nemotron-3-ultra": Family("nemotron_3_ultra", _CHATML, _CALL + _THINK, eos="<|im_end|>"),
    "nemotron-3": Family("nemotron_3_nano", _CHATML, _CALL + _THINK, eos="<|im_end|>"),
    "olmo-2": Family("olmo2", ["<|endoftext|>"], _SPACES, bos="<|endoftext|>", eos="<|endoftext|>", pad="!"),
    "glm-4.5": Family("glm4moe", _GLM, _CALL + _THINK, eos="<|endoftext|>"),
}

# How Llama 3, Qwen and gpt-oss cut a text before they look for pieces: line breaks stay together, words keep the space
# before them.
_CUTS = r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_GPT2_CUTS = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"  # keeps "\n  " together
_WORDS = (
    "Hello there So long Hi Bye Be kind brief Weather What is the Bonn rain Bring umbrella system user assistant think"
)
_KEYS = (
    "tool name type description parameters arguments properties required object string function city content call_id"
)


def family_tokenizer(name: str, template: str | None = None) -> "PreTrainedTokenizerFast":
    """The family's tokenizer, to which each word of the family's template is one token; `template` replaces that."""
    from transformers import PreTrainedTokenizerFast

    family = FAMILIES[name]
    fast = PreTrainedTokenizerFast(tokenizer_object=_pieces(name), bos_token=family.bos, eos_token=family.eos)
    if family.pad is not None:
        fast.pad_token = family.pad
    fast.chat_template = template or family.source
    return fast


def trained_pieces(pieces: str, texts: Iterable[str]) -> "Tokenizer":
    """A BPE model that learns every word of `texts`, with the parts around it that its kind of tokenizer has."""
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

    if pieces in ("bytes", "gpt-2"):
        tokenizer = Tokenizer(models.BPE())
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Split(Regex(_CUTS if pieces == "bytes" else _GPT2_CUTS), "isolated"),
                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
            ]
        )
        tokenizer.decoder = decoders.ByteLevel()
    else:
        tokenizer = Tokenizer(models.BPE())
        alphabet = ["▁", "\n", *map(chr, range(33, 127))]
        if pieces == "every ▁":  # before every piece of text, also behind an added token
            tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
            words = pre_tokenizers.Split("▁", "merged_with_next")
        elif pieces == "▁":
            tokenizer.normalizer = normalizers.Replace(" ", "▁")
            words = pre_tokenizers.Split("▁", "merged_with_next")
        else:
            words = pre_tokenizers.Metaspace(prepend_scheme="first")
        breaks, marks = pre_tokenizers.Split(Regex("\n+"), "isolated"), pre_tokenizers.Split(Regex("[.?:]"), "isolated")
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([words, breaks, marks])
        tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    recipe = trainers.BpeTrainer(vocab_size=6000, min_frequency=1, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(texts, recipe)
    if pieces not in (
        "bytes",
        "gpt-2",
    ):  # what is in no piece is spelled in bytes, as SentencePiece does; the trainer cannot say so
        learned = json.loads(tokenizer.to_str())["model"]
        vocabulary = [*learned["vocab"], *(f"<0x{byte:02X}>" for byte in range(256))]
        numbers = {piece: number for number, piece in enumerate(vocabulary)}
        tokenizer.model = models.BPE(numbers, [tuple(pair) for pair in learned["merges"]], byte_fallback=True)
    return tokenizer


@cache
def _pieces(name: str) -> "Tokenizer":
    from tokenizers import AddedToken, processors

    family = FAMILIES[name]
    source = family.source
    for token in sorted([*family.special, *family.plain], key=len, reverse=True):
        source = source.replace(token, " ")
    words = {*re.sub(r"\\n|[^\w\s]", " ", source).split(), *_WORDS.split(), *_KEYS.split()}
    texts = sorted(
        [*words, *(f" {word}" for word in words), "\n\n", "\n", *(["\n   "] if family.pieces == "gpt-2" else [])]
    )
    tokenizer = trained_pieces(family.pieces, texts)
    sides = {"lstrip": family.trims == "both", "rstrip": family.trims != ""}
    tokenizer.add_special_tokens([AddedToken(token, normalized=False, **sides) for token in family.special])
    tokenizer.add_tokens([AddedToken(token, normalized=False) for token in family.plain])
    if family.adds_bos:
        number = tokenizer.token_to_id(family.bos)
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{family.bos} $A", special_tokens=[(family.bos, number)]
        )
    return tokenizer
