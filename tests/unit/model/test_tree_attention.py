"""Each kind of attention over a pack is the dense rule, and the dense rule is each conversation alone."""

from random import Random
from typing import Any

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import LlamaConfig, LlamaForCausalLM

from trainer.data.pack.packing import Pack, make_packs
from trainer.data.render.rendering import Example
from trainer.model import segments
from trainer.model.segments import segment_attention
from trainer.model.tree_attention import dense_mask, find_blocks, kind_for, make_tree


def pack_of(seed: int, longest: int = 300, count: int = 9) -> Pack:
    random = Random(seed)
    beginning = [random.randrange(4) for _ in range(longest)]
    rows = []
    for _ in range(count):
        ids = (*beginning[: random.randrange(longest)], *(random.randrange(4) for _ in range(random.randrange(2, 200))))
        rows.append(Example(ids, (-100, *ids[1:])))
    (pack,) = make_packs(rows, 100_000)
    return pack


@pytest.mark.apart
def test_the_dense_mask_is_the_rule_word_by_word() -> None:
    ends = pack_of(0, longest=20, count=5).subtree_end
    mask = dense_mask(ends)[0, 0]
    for query in range(len(ends)):
        for key in range(len(ends)):
            assert mask[query, key] == (key <= query < ends[key])


@pytest.mark.parametrize("kept_keys", [0, 1024])
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("heads", "key_heads"), [(6, 2), (4, 4)])
@pytest.mark.apart
def test_attention_by_segments_is_dense_attention(
    monkeypatch: pytest.MonkeyPatch, seed: int, kept_keys: int, heads: int, key_heads: int
) -> None:
    monkeypatch.setattr(segments, "KEPT_KEYS", kept_keys)
    torch.manual_seed(seed)
    pack = pack_of(seed)
    size = len(pack.input_ids)
    query, key, value = (
        torch.randn(n, size, width, dtype=torch.float64, requires_grad=True)
        for n, width in ((heads, 8), (key_heads, 8), (key_heads, 12))
    )
    found = segment_attention(query, key, value, find_blocks(pack), 0.3)
    expected = scaled_dot_product_attention(
        query[None], key[None], value[None], attn_mask=dense_mask(pack.subtree_end), scale=0.3, enable_gqa=True
    )[0]
    assert torch.allclose(found, expected, rtol=1e-12, atol=1e-12)
    weight = torch.randn_like(found)
    pairs = zip(
        torch.autograd.grad(found, (query, key, value), weight),
        torch.autograd.grad(expected, (query, key, value), weight),
        strict=True,
    )
    for mine, theirs in pairs:
        assert (mine - theirs).norm() <= 1e-12 * theirs.norm()


def test_16_bits_round_the_result_and_not_the_scores() -> None:
    """Scores near 40 in bfloat16 would be off by an eighth, and probabilities by 13 %."""
    torch.manual_seed(0)
    pack = pack_of(5)
    query, key = (torch.randn(2, len(pack.input_ids), 64).bfloat16() for _ in range(2))
    value = torch.randn(2, len(pack.input_ids), 64).bfloat16()
    before = torch.backends.mkldnn.matmul.fp32_precision
    found = segment_attention(query * 5, key, value, find_blocks(pack), 1.0)
    assert torch.backends.mkldnn.matmul.fp32_precision == before  # other float32 products stay as they were
    expected = segment_attention((query * 5).double(), key.double(), value.double(), find_blocks(pack), 1.0)
    assert (found - expected).norm() <= 0.01 * expected.norm()


CUDA = torch.device("cuda")


@pytest.mark.parametrize(
    ("changes", "has_flex", "kind"),
    [
        ({}, True, "flex"),
        ({"head_dim": 80}, True, "flex"),
        ({"head_dim": 8}, True, "dense"),  # no kernel of FlexAttention is that narrow
        ({"attention_dropout": 0.1}, True, "dense"),
        ({}, False, "dense"),  # before Ampere
    ],
)
def test_the_kind_of_attention_on_a_gpu(changes: dict[str, Any], has_flex: bool, kind: str) -> None:
    config = LlamaConfig(hidden_size=64, num_attention_heads=4, intermediate_size=8, num_hidden_layers=1, **changes)
    with torch.device("meta"):
        model = LlamaForCausalLM(config)
    assert kind_for(model, CUDA, has_flex) == kind


@pytest.mark.parametrize("kind", ["dense", "eager"])
def test_a_mask_begins_each_row_where_a_kernel_can_read_it(kind: Any) -> None:
    pack = pack_of(0, longest=20, count=5)
    mask = make_tree(pack, kind, torch.device("cpu"), torch.float16).mask
    assert mask is not None
    assert torch.equal(mask == 0, dense_mask(pack.subtree_end))
    assert mask.shape[-1] % 8  # which is why it matters
    assert all(stride % 8 == 0 for stride in mask.stride()[:-1])
