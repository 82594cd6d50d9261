"""The lists of blocks are those that torch finds by computing the rule; one graph serves packs of all lengths."""

from collections.abc import Iterator
from random import Random
from typing import Any

import pytest
import torch
from torch.nn.attention.flex_attention import create_block_mask
from torch.nn.functional import scaled_dot_product_attention

from tests.traced_flex import traced_flex
from tests.unit.model.test_tree_attention import pack_of
from trainer.model import flex
from trainer.model.tree_attention import dense_mask

pytestmark = pytest.mark.apart

CPU = torch.device("cpu")


def ends_of(seed: int) -> torch.Tensor:
    """Of a random trie: short and long branches, so that some blocks are seen whole, in part and not at all."""
    random = Random(seed)
    longest = random.choice((150, 400, 900))
    return pack_of(seed, longest=longest, count=random.randrange(1, 14)).subtree_end


def mask_of(ends: torch.Tensor) -> Any:
    return flex.block_mask(*flex.find_layout(ends, CPU))


@pytest.mark.parametrize("seed", range(40))
def test_the_lists_are_those_that_torch_finds_by_computing_the_rule(seed: int) -> None:
    ends = ends_of(seed)
    found = mask_of(ends)
    expected = create_block_mask(found.mask_mod, None, None, len(ends), len(ends), device="cpu")
    assert found.shape == expected.shape
    assert found.BLOCK_SIZE == expected.BLOCK_SIZE
    for name in flex.LISTS:
        mine, theirs = getattr(found, name), getattr(expected, name)
        assert torch.equal(mine, theirs), name
        assert mine.dtype == theirs.dtype


@pytest.mark.parametrize("size", [300, 383, 384, 385])
@pytest.mark.parametrize("end", [127, 128, 129, 255, 256, 257])
def test_a_row_that_ends_at_the_edge_of_a_block(end: int, size: int) -> None:
    """The last query of a block sees the row's last block of keys, or is the first that does not."""
    ends = torch.tensor([end] * end + [size] * (size - end))
    found = mask_of(ends)
    expected = create_block_mask(found.mask_mod, None, None, size, size, device="cpu")
    assert all(torch.equal(getattr(found, name), getattr(expected, name)) for name in flex.LISTS)


@pytest.mark.parametrize("seed", range(4))
def test_its_rule_is_the_dense_mask(seed: int) -> None:
    ends = ends_of(seed)
    number = torch.arange(len(ends))
    visible = mask_of(ends).mask_mod(torch.tensor(0), torch.tensor(0), number[:, None], number[None, :])
    assert torch.equal(visible, dense_mask(ends)[0, 0])


@pytest.fixture
def graphs() -> Iterator[list[Any]]:
    with traced_flex() as found:
        yield found


def heads(size: int, count: int, width: int) -> torch.Tensor:
    """As a model makes them: [1, U, heads, d] seen as [1, heads, U, d]."""
    return torch.randn(1, size, count, width, dtype=torch.float64).transpose(1, 2).requires_grad_()


def test_it_is_dense_attention_and_compiled_once_for_all_lengths(graphs: list[Any]) -> None:
    torch.manual_seed(0)
    for seed in range(10):  # torch gives up after eight compilations
        ends = pack_of(seed, longest=150, count=3).subtree_end
        query, key, value = heads(len(ends), 6, 16), heads(len(ends), 2, 16), heads(len(ends), 2, 20)
        layout = flex.find_layout(ends, CPU)
        found = flex.attend(query, key, value, layout, 0.3)
        expected = scaled_dot_product_attention(
            query, key, value, attn_mask=dense_mask(ends), scale=0.3, enable_gqa=True
        )
        assert torch.allclose(found, expected, rtol=1e-12, atol=1e-12)
        weight = torch.randn_like(found)
        mine = torch.autograd.grad(found, (query, key, value), weight)
        theirs = torch.autograd.grad(expected, (query, key, value), weight)
        for a, b in zip(mine, theirs, strict=True):
            assert (a - b).norm() <= 1e-12 * b.norm()
        with torch.no_grad():
            assert torch.equal(flex.attend(query, key, value, layout, 0.3), found)
    assert len(graphs) == 2  # with gradients and without


def test_what_cannot_be_compiled_once_more_is_an_error(graphs: list[Any]) -> None:
    """torch would run without its kernels and hold all scores at once."""
    layout = flex.find_layout(ends_of(0), CPU)
    size = len(layout[0])
    flex.attend(heads(size, 2, 16), heads(size, 2, 16), heads(size, 2, 16), layout, 0.3)
    with torch._dynamo.config.patch(recompile_limit=1), pytest.raises(torch._dynamo.exc.FailOnRecompileLimitHit):
        flex.attend(heads(size, 4, 16), heads(size, 4, 16), heads(size, 4, 16), layout, 0.3)


@pytest.mark.long
def test_a_kernel_that_goes_by_the_lists_gives_dense_attention() -> None:
    """torch's kernel for CPUs: forward, and of one length, for which alone it can be compiled there."""
    torch.manual_seed(0)
    ends = pack_of(5, longest=900, count=6).subtree_end
    query, key, value = (torch.randn(1, count, len(ends), 32) for count in (6, 2, 2))
    layout = [tensor.clone() for tensor in flex.find_layout(ends, CPU)]  # a copy is not marked as varying
    assert layout[3].any()  # some blocks are seen whole
    torch._dynamo.reset()
    found = torch.compile(flex._attend, fullgraph=True)(query, key, value, 0.3, *layout)
    expected = scaled_dot_product_attention(query, key, value, attn_mask=dense_mask(ends), scale=0.3, enable_gqa=True)
    assert torch.allclose(found, expected, rtol=1e-4, atol=1e-5)
    layout[3].zero_()
    assert not torch.allclose(torch.compile(flex._attend)(query, key, value, 0.3, *layout), expected, atol=1e-3)
