"""What a policy says of other tokens than those given, against plain transformers and full logits."""

from __future__ import annotations

import pytest
import torch
from support.tiny import make_tokenizer, tiny_llama, token_path
from torch import Tensor

from onestage.data.packing import EMPTY, pack
from onestage.models.distributions import Head, rivals
from onestage.models.head import Shape
from onestage.models.policy import Policy

IDS = [[0, 5, 17, 33, 8, 1], [0, 5, 17, 40, 41, 42, 1]]
"""Two answers to one prompt of three tokens, of which the forest has one."""
PATHS = [token_path(ids, (3, len(ids)), responses=(n,)) for n, ids in enumerate(IDS)]
(ROW,) = pack([PATHS], 64)
READS = ("logp", "rivals", "mixed_logp")


def contrasts(logits_KV: Tensor, target_K: Tensor, count: int) -> Tensor:
    """The cross-entropy of each two logits that may be drawn, times the chance of the draw."""
    found = []
    for logits_V, target in zip(logits_KV, target_K.tolist(), strict=True):
        others = sorted(
            set(range(len(logits_V))) - {target}, key=lambda v: -float(logits_V[v].detach())
        )
        chance = logits_V[others[:count]].detach().softmax(0)
        two = torch.stack([logits_V[[target, other]] for other in others[:count]])
        right = torch.ones(len(two), dtype=torch.int64)
        each = torch.nn.functional.cross_entropy(two, right, reduction="none")
        found.append((chance * each).sum())
    return torch.stack(found)


def naive(model: object, share: float, count: int) -> dict[str, Tensor]:
    """Each path alone; guesses are mixed in as embeddings, by hand."""
    said: dict[str, list[Tensor]] = {name: [] for name in READS}
    table = model.get_input_embeddings().weight  # type: ignore[attr-defined]
    for ids in IDS:
        given, target_K = torch.tensor([ids]), torch.tensor(ids[3:])
        plain = model(given).logits[0]  # type: ignore[operator]
        read = table[given[0]]
        guessed = table[plain[:-1].argmax(-1)]
        read = torch.cat([read[:3], (1 - share) * read[3:] + share * guessed[2:]])
        mixed = model(inputs_embeds=read[None]).logits[0]  # type: ignore[operator]
        for name, logits in (("logp", plain), ("mixed_logp", mixed)):
            logp = logits[2:-1].log_softmax(-1)
            said[name].append(logp.gather(1, target_K[:, None])[:, 0])
        said["rivals"].append(contrasts(plain[2:-1], target_K, count))
    return {name: torch.cat(parts) for name, parts in said.items()}


@pytest.mark.parametrize("layout", ["forest", "alone"])
def test_against_plain_transformers(layout: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Values and gradients, also by the embeddings that are mixed."""
    policy = Policy(tiny_llama(0), make_tokenizer())
    policy.ask_with({"rivals": 3, "mixed_logp": 0.3})
    if layout == "alone":
        monkeypatch.setattr(Policy, "packs", lambda *_: False)
    said, want = policy.look(ROW, READS), naive(policy.model, 0.3, 3)
    assert not torch.allclose(want["mixed_logp"], want["logp"], atol=1e-3)
    inner = policy.model.model
    weights = [inner.layers[0].mlp.up_proj.weight, inner.embed_tokens.weight]
    for name in READS:
        torch.testing.assert_close(said[name], want[name], rtol=1e-4, atol=1e-5)
        for weight in weights:
            found, naively = (
                torch.autograd.grad(values[name].sum(), weight, retain_graph=True)[0]
                for values in (said, want)
            )
            torch.testing.assert_close(
                found, naively, rtol=1e-3, atol=1e-5 * float(naively.abs().max())
            )


def test_a_turn_that_another_path_only_reads_is_mixed_for_its_own() -> None:
    """Design law 4: the answer of one path is the prompt of another, which reads it as it stands."""
    policy = Policy(tiny_llama(0), make_tokenizer())
    policy.ask_with({"mixed_logp": 0.5})
    longer = token_path([*IDS[0], 44, 45, 1], (6, 9), responses=(1,))
    (both,) = pack([[PATHS[0], longer]], 64)
    assert len(both) == 9  # the longer one is all of it
    alone = [policy.look(pack([[path]], 64)[0], ["mixed_logp"]) for path in both.paths]
    want = torch.cat([said["mixed_logp"] for said in alone])
    torch.testing.assert_close(policy.look(both, ["mixed_logp"])["mixed_logp"], want)
    talk = token_path([*IDS[0], 44, 45, 1], (3, 6), (7, 9), responses=(0, 1))
    assert policy.packs(both)
    assert not policy.packs(both, ["mixed_logp"])
    assert all(policy.packs(row, ["mixed_logp"]) for row in (ROW, EMPTY, pack([[talk]], 64)[0]))


def test_with_nothing_mixed_in_it_is_the_likelihood() -> None:
    policy = Policy(tiny_llama(0), make_tokenizer())
    with pytest.raises(ValueError, match="mixed_logp is read with a number"):
        policy.look(ROW, ["mixed_logp"])
    policy.ask_with({"mixed_logp": 0.0})
    said = policy.look(ROW, ["mixed_logp"])
    torch.testing.assert_close(said["mixed_logp"], said["logp"])
    nothing = policy.look(EMPTY, ["mixed_logp"])  # what a rank runs while others have a row
    assert nothing["mixed_logp"].shape == nothing["logp"].shape
    assert not policy.model.get_input_embeddings()._forward_hooks


def test_rivals_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of logits ln 4, ln 2, ln 1 and a target of the second: two rivals of 4 : 1, so 4/5 log(1 + 2/4) +
    1/5 log(1 + 2); of one rival alone log(1 + 2/4). Cut into chunks, nothing changes."""
    logits = torch.tensor([4.0, 2.0, 1.0]).log()
    head = Head(torch.eye(3), None, Shape())
    states, target = logits.repeat(3, 1), torch.tensor([1, 0, 1])
    two = 0.8 * torch.tensor(1.5).log() + 0.2 * torch.tensor(3.0).log()
    assert rivals(states, head, target, 2)[0].item() == pytest.approx(two.item())
    assert rivals(states, head, target, 9)[0].item() == pytest.approx(two.item())
    one = rivals(states, head, target, 1)
    assert one.exp().tolist() == pytest.approx([1.5, 3.0, 1.5])
    monkeypatch.setattr(Head, "positions", 2)
    torch.testing.assert_close(rivals(states, head, target, 1), one)
    assert rivals(states[:0], head, target[:0], 1).shape == (0,)
