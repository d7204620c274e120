"""Merging: each formula by hand, whole merges against sums written out, and every bad input."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from support.tiny import CHAT, TINY, make_tokenizer, sharpen, tiny_llama, write_rows
from transformers import AutoModelForCausalLM, GPT2Config, LlamaConfig
from typer.testing import CliRunner

from onestage.cli._terminal import app
from onestage.data.stream import Stream
from onestage.models.merge import DENSITY, Adaptive, Merge, into_base, merge
from onestage.models.merge import run as merging
from onestage.models.merge.adaptive import (
    block_of,
    bounds_of,
    find_shares,
    pulls,
    shares_of,
)
from onestage.models.merge.examples import Example, good_examples, prompts, read_records
from onestage.models.merge.family import floating_tensors, load_family
from onestage.models.merge.methods import combiner, slerp
from onestage.models.merge.run import distance, logits_of, run


def call(*words: object, code: int = 0) -> str:
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exit_code == code, result.output
    return " ".join(result.output.split())


def asked_of(*names: object, **options: Any) -> Merge:
    return Merge(models=[str(name) for name in names], **options)


def perturbed(model: Any, seed: int, size: float = 0.02) -> Any:
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(size * torch.randn_like(parameter))
    return model


def save(model: Any, folder: Path, **tokenizer: Any) -> Path:
    model.save_pretrained(folder)
    make_tokenizer(**tokenizer).save_pretrained(folder)
    return folder


def make_adapter(base: Path, folder: Path, seed: int, **options: Any) -> Path:
    model: Any = AutoModelForCausalLM.from_pretrained(base)
    settings = {"r": 4, "lora_alpha": 8, "target_modules": "all-linear", **options}
    model = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", **settings))
    torch.manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.normal_(std=0.1)
    return save(model, folder)


@pytest.fixture(scope="module")
def kin(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A base, two whole models and two adapters of it."""
    root = tmp_path_factory.mktemp("kin")
    base = save(tiny_llama(), root / "base")
    return {
        "base": base,
        "one": save(perturbed(tiny_llama(), 1), root / "one"),
        "two": save(perturbed(tiny_llama(), 2), root / "two"),
        "sft": make_adapter(base, root / "sft", 3),
        "pref": make_adapter(base, root / "pref", 4, target_modules=["q_proj", "up_proj"]),
    }


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return AutoModelForCausalLM.from_pretrained(folder).state_dict()


def whole(kin: dict[str, Path], adapter: str) -> dict[str, torch.Tensor]:
    """What PEFT's own merge makes of an adapter."""
    model: Any = AutoModelForCausalLM.from_pretrained(kin["base"])
    return PeftModel.from_pretrained(model, str(kin[adapter])).merge_and_unload().state_dict()


def assert_weights(folder: Path, expected: dict[str, torch.Tensor]) -> None:
    found = weights(folder)
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, rtol=1e-5, atol=1e-6)


# The formulae, by hand


def numbers(*values: float) -> torch.Tensor:
    return torch.tensor([float(value) for value in values])


def test_linear_divides_by_the_weights_and_task_arithmetic_does_not() -> None:
    deltas = [numbers(1, -2), numbers(3, 4)]
    torch.testing.assert_close(combiner("linear", [1, 3])(deltas), numbers(2.5, 2.5))
    torch.testing.assert_close(combiner("task_arithmetic", [1, 3])(deltas), numbers(10, 10))


def test_ties_trims_elects_a_sign_and_averages_those_that_have_it() -> None:
    """Half of four entries are kept: (4, 0, 0, -2) and (-1, 0, 0, -6); the second entry of the last
    position agrees. Sums 3, 0, 0, -8 elect +, +, +, -: 4 alone, nothing, nothing, (-2 - 6) / 2."""
    deltas = [numbers(4, 1, 0.5, -2), numbers(-1, 0.1, -0.5, -6)]
    merged = combiner("ties", [1, 1], 0.5)(deltas)
    torch.testing.assert_close(merged, numbers(4, 0, 0, -4))
    # Weights scale what is averaged, and do not vote: 2 * 4, and (2 * -2 + 1 * -6) / 2.
    weighted = combiner("ties", [2, 1], 0.5)(deltas)
    torch.testing.assert_close(weighted, numbers(8, 0, 0, -5))


def test_ties_with_all_entries_kept() -> None:
    merged = combiner("ties", [1, 1], 1.0)([numbers(4, 1), numbers(-1, 3)])
    torch.testing.assert_close(merged, numbers(4, 2))


def test_ties_keeps_one_of_a_few_entries() -> None:
    """Sinks and biases of routers: a fifth of four numbers was none of them."""
    merged = combiner("ties", [1.0], 0.2)([numbers(0.1, -0.4, 0.2, 0.3)])
    torch.testing.assert_close(merged, numbers(0, -0.4, 0, 0))


def test_dare_keeps_the_expectation_and_drops_what_it_says() -> None:
    torch.manual_seed(0)
    delta = torch.ones(40_000)
    found = combiner("dare_linear", [1, 1], 0.25)([delta, 2 * delta])
    # Each is dropped on its own: 0, 1/.25, 2/.25 or both, and the mean stays 3 (4 deviations: .08).
    assert sorted(found.unique().tolist()) == [0, 4, 8, 12]
    assert found.mean().item() == pytest.approx(3, abs=0.08)
    assert (found == 0).float().mean().item() == pytest.approx(0.75**2, abs=0.01)


def test_dare_ties_averages_only_what_agrees() -> None:
    torch.manual_seed(0)
    found = combiner("dare_ties", [1, 1], 0.5)([torch.ones(1000), -3 * torch.ones(1000)])
    # 1 / .5 where the second is dropped, -3 / .5 where it is not: never a mixture.
    assert sorted(found.unique().tolist()) == [-6, 0, 2]


def test_slerp_walks_the_arc() -> None:
    root = math.sqrt(0.5)
    half = slerp(numbers(1, 0), numbers(0, 1), share=0.5)
    torch.testing.assert_close(half, numbers(root, root))
    third = slerp(numbers(1, 0), numbers(0, 1), share=1 / 3)
    torch.testing.assert_close(third, numbers(math.cos(math.pi / 6), 0.5))
    torch.testing.assert_close(combiner("slerp", [2, 1])([numbers(1, 0), numbers(0, 1)]), third)


@pytest.mark.parametrize("second", [(2.0, 4.0), (-1.0, -2.0), (0.0, 0.0), (1.0, 2.00001)])
def test_slerp_of_nearly_parallel_or_zero_is_a_line(second: tuple[float, float]) -> None:
    first = numbers(1, 2)
    found = slerp(first, numbers(*second), share=0.25)
    torch.testing.assert_close(found, 0.75 * first + 0.25 * numbers(*second))


# Whole merges


def test_linear_of_whole_models_is_the_mean_of_their_weights(
    kin: dict[str, Path], tmp_path: Path
) -> None:
    asked = asked_of(kin["one"], kin["two"], out=tmp_path / "out", weights=[1, 3])
    merged = run(asked)
    one, two = weights(kin["one"]), weights(kin["two"])
    assert_weights(tmp_path / "out", {n: one[n] / 4 + two[n] * 3 / 4 for n in one})
    assert merged.distances[0].kl > merged.distances[1].kl > 0
    assert all(row.zeros is None for row in merged.distances)


def test_merging_in_python(kin: dict[str, Path], tmp_path: Path) -> None:
    merged = merge([kin["one"], str(kin["two"])], tmp_path / "out", weights=[1, 3])
    one, two = weights(kin["one"]), weights(kin["two"])
    assert_weights(merged.folder, {n: one[n] / 4 + two[n] * 3 / 4 for n in one})
    with pytest.raises(ValueError, match="--density has no meaning for linear"):
        merge([kin["one"], kin["two"]], tmp_path / "other", density=0.5)


def test_model_averaging_with_the_base_itself(kin: dict[str, Path], tmp_path: Path) -> None:
    call(
        *("merge", kin["base"], kin["sft"], "--out", tmp_path / "out"),
        *("--weights", 0.2, "--weights", 0.8),
    )
    base, sft = weights(kin["base"]), whole(kin, "sft")
    assert_weights(tmp_path / "out", {n: 0.2 * base[n] + 0.8 * sft[n] for n in base})


@pytest.mark.parametrize("method", ["linear", "task_arithmetic", "ties", "slerp"])
def test_adapters_are_merged_as_whole_weights(
    method: str, kin: dict[str, Path], tmp_path: Path
) -> None:
    options = {"density": 0.4} if method == "ties" else {}
    run(asked_of(kin["sft"], kin["pref"], out=tmp_path / "out", method=method, **options))
    base, sft, pref = weights(kin["base"]), whole(kin, "sft"), whole(kin, "pref")
    combine = combiner(method, [1, 1], 0.4)
    assert_weights(
        tmp_path / "out",
        {n: base[n] + combine([sft[n] - base[n], pref[n] - base[n]]) for n in base}
        if method != "linear"
        else {n: (sft[n] + pref[n]) / 2 for n in base},
    )


def test_whole_models_and_their_base_give_what_the_adapters_give(
    kin: dict[str, Path], tmp_path: Path
) -> None:
    for name in ("sft", "pref"):
        model: Any = AutoModelForCausalLM.from_pretrained(kin["base"])
        model.load_state_dict(whole(kin, name))
        save(model, tmp_path / name)
    common = {"method": "ties", "weights": [1.0, 0.5], "density": 0.3}
    run(asked_of(kin["sft"], kin["pref"], out=tmp_path / "a", **common))
    asked = asked_of(
        *(tmp_path / name for name in ("sft", "pref")),
        out=tmp_path / "b",
        base=str(kin["base"]),
        **common,
    )
    run(asked)
    found, expected = weights(tmp_path / "b"), weights(tmp_path / "a")
    for name in found:  # rounding may move an entry over the edge of what is kept
        different = (found[name] - expected[name]).abs() > 1e-5
        assert different.float().mean() < 0.002


@pytest.mark.parametrize("method", ["dare_linear", "dare_ties"])
def test_dare_is_reproducible_and_its_seed_counts(
    method: str, kin: dict[str, Path], tmp_path: Path
) -> None:
    names = [str(kin["sft"]), str(kin["pref"])]
    for out, seed in (("a", 7), ("b", 7), ("c", 8)):
        run(asked_of(*names, out=tmp_path / out, method=method, density=0.5, seed=seed))
    a, b, c = (weights(tmp_path / out)["model.layers.0.mlp.up_proj.weight"] for out in "abc")
    assert torch.equal(a, b)
    assert not torch.equal(a, c)


def test_command_prints_the_comparison_and_the_folder_is_ordinary(
    kin: dict[str, Path], tmp_path: Path, rows: dict[str, list[dict[str, Any]]]
) -> None:
    data = write_rows(tmp_path / "pairs.jsonl", [*rows["pair"], {"prompt": "p", "chosen": "c"}])
    out = tmp_path / "deep" / "out"
    text = call(
        *("merge", kin["sft"], kin["pref"], "--out", out, "--method", "ties", "--density", 0.2),
        *("--weights", 0.5, "--weights", 0.5, "--data", data),
    )
    assert "largest logit" in text
    assert "mean KL" in text
    assert "reloaded from disk" in text
    assert "left out pairs.jsonl:9" in text
    assert "1 rows left out" in text
    facts = json.loads((out / "merge.json").read_text())
    names = [row["name"] for row in facts["distances"]]
    assert names == [str(kin["sft"]), str(kin["pref"]), f"{kin['base']} (base)"]
    assert all(row["logit"] > 0.01 and row["kl"] > 0 for row in facts["distances"])
    assert facts["density"] == 0.2
    assert facts["reload"] < 1e-3
    assert make_tokenizer().get_vocab() == _tokenizer(out).get_vocab()
    assert sorted(path.name for path in out.parent.iterdir()) == ["out"]


def _tokenizer(folder: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder)


def test_help_says_the_defaults_that_hold() -> None:
    text = call("merge", "--help").replace("│ ", "")
    for name, field in Adaptive.model_fields.items():
        if name != "tokens_per_row":
            assert f"--{name.replace('_', '-')} " in text
            assert f"[default: ({float(field.default):g})]" in text
    assert "equal; 1 with deltas" in text
    assert f"({DENSITY})" in text


@pytest.mark.parametrize("first", ["base", "sft"])
def test_distances_are_from_the_models_themselves(
    first: str, kin: dict[str, Path], tmp_path: Path
) -> None:
    names = [str(kin[first]), str(kin["pref"])]
    merged = run(asked_of(*names, out=tmp_path / "out", method="task_arithmetic"))
    chosen = prompts(make_tokenizer())
    result = logits_of(AutoModelForCausalLM.from_pretrained(tmp_path / "out"), chosen)
    assert len(result) == sum(len(ids) for ids in chosen)
    found = {row.name: row.logit for row in merged.distances}
    assert len(found) == (2 if first == "base" else 3)
    for name in {first, "pref", "base"}:
        model: Any = AutoModelForCausalLM.from_pretrained(kin["base"])
        if name != "base":
            model = PeftModel.from_pretrained(model, str(kin[name]))
        expected = (logits_of(model.eval(), chosen) - result).abs().max().item()
        label = f"{kin['base']} (base)" if name == "base" != first else str(kin[name])
        assert found[label] == pytest.approx(expected, rel=1e-3)


def test_the_chat_template_is_kept(kin: dict[str, Path], tmp_path: Path) -> None:
    plain = shutil.copytree(kin["one"], tmp_path / "plain")
    (plain / "chat_template.jinja").unlink()
    assert _tokenizer(plain).chat_template is None
    run(asked_of(plain, kin["two"], out=tmp_path / "out"))
    assert _tokenizer(tmp_path / "out").chat_template == CHAT


def test_distances_are_what_they_say() -> None:
    theirs, merged = torch.zeros(2, 2), torch.tensor([[0.0, math.log(3)], [0.0, 0.0]])
    found = distance("m", theirs, merged, None)
    assert found.logit == pytest.approx(math.log(3))
    # KL((1/2, 1/2) || (1/4, 3/4)) = (ln 2 + ln(2/3)) / 2, and 0 at the second token.
    assert found.kl == pytest.approx((math.log(2) + math.log(2 / 3)) / 4)


def test_zeros_of_a_delta_are_counted(kin: dict[str, Path], tmp_path: Path) -> None:
    model = tiny_llama()
    with torch.no_grad():
        model.model.layers[0].mlp.up_proj.weight[:32] += 0.1
    changed, total = 32 * 32, sum(t.numel() for t in floating_tensors(model).values())
    sparse = save(model, tmp_path / "sparse")
    names = [str(sparse), str(kin["sft"])]
    merged = run(asked_of(*names, out=tmp_path / "out", base=str(kin["base"])))
    assert merged.distances[0].zeros == pytest.approx(1 - changed / total, abs=1e-6)
    assert merged.distances[1].zeros is not None
    assert merged.distances[1].zeros < 0.01


def test_a_folder_that_does_not_give_the_same_logits_is_not_kept(
    kin: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = merging.fill_model

    def damaged(model: Any, tokenizer: Any, folder: Path) -> None:
        original(perturbed(model, 5, 0.1), tokenizer, folder)

    monkeypatch.setattr(merging, "fill_model", damaged)
    with pytest.raises(RuntimeError, match="not kept"):
        run(asked_of(kin["one"], kin["two"], out=tmp_path / "out"))
    assert not list(tmp_path.iterdir())


def test_tied_weights_and_bfloat16(tmp_path: Path) -> None:
    """Computed in float32 and rounded once; a tied embedding counts once and stays tied."""
    folders = []
    for seed in range(3):
        torch.manual_seed(seed)
        config = LlamaConfig(**{**TINY, "tie_word_embeddings": True})
        model = sharpen(AutoModelForCausalLM.from_config(config)).to(torch.bfloat16)
        folders.append(save(model, tmp_path / str(seed)))
    asked = asked_of(
        *folders[1:], out=tmp_path / "out", method="task_arithmetic", base=str(folders[0])
    )
    run(asked)
    base, one, two = (weights(f) for f in folders)
    found: Any = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert found.lm_head.weight is found.model.embed_tokens.weight
    assert found.dtype == torch.bfloat16
    for name, tensor in found.state_dict().items():
        exact = one[name].float() + two[name].float() - base[name].float()
        torch.testing.assert_close(tensor, exact.to(torch.bfloat16), rtol=0.01, atol=1e-6)


def test_counters_are_left_as_they_are(kin: dict[str, Path]) -> None:
    model = tiny_llama()
    model.register_buffer("steps", torch.tensor(3))
    model.register_buffer("scale", torch.tensor(0.5))
    found = floating_tensors(model)
    assert "steps" not in found
    assert "scale" in found


# AMA


def example(ids: list[int], start: int, weight: float = 1.0) -> Example:
    from onestage.data.trees import TokenPath

    return Example(TokenPath(np.asarray(ids, np.int32), ((start, len(ids)),), (0,)), weight)


def test_shares_keep_their_mean() -> None:
    torch.testing.assert_close(shares_of(torch.zeros(3), 0.2, 0.2), torch.full((3,), 0.2))
    v = torch.tensor([100.0, -100.0])
    torch.testing.assert_close(shares_of(v, 0.2, 0.2), numbers(0.4 * 1.2 / 1.4, 0.4 * 0.2 / 1.4))
    assert shares_of(torch.randn(5), 0.3, 0.1).mean().item() == pytest.approx(0.3)


def test_blocks_hold_every_tensor() -> None:
    assert bounds_of(26, 3) == ((0, 9), (9, 17), (17, 26))
    model = tiny_llama()
    block = block_of(model, list(floating_tensors(model)), 2)
    assert block["model.embed_tokens.weight"] == block["model.layers.0.mlp.up_proj.weight"] == 0
    assert block["model.layers.1.mlp.up_proj.weight"] == 1
    assert block["model.norm.weight"] == block["lm_head.weight"] == 1
    gpt = AutoModelForCausalLM.from_config(
        GPT2Config(n_layer=2, n_head=2, n_embd=8, vocab_size=40, n_positions=16)
    )
    block = block_of(gpt, list(floating_tensors(gpt)), 2)
    assert block["transformer.wpe.weight"] == block["transformer.wte.weight"] == 0
    assert block["transformer.h.1.ln_1.weight"] == block["transformer.ln_f.weight"] == 1


Asked = tuple[Any, dict[str, torch.Tensor], list[Example]]


@pytest.fixture
def ruined() -> Asked:
    """A pre-trained model, the delta of an aligned one whose second layer is ruined, and the
    pre-trained model's own greedy continuations: they want the pre-trained second layer."""
    pre, aligned = tiny_llama(), tiny_llama()
    perturbed(aligned.model.layers[1], 6, 0.3)
    state = pre.state_dict()
    delta = {name: tensor - state[name] for name, tensor in floating_tensors(aligned).items()}
    starts = torch.tensor([[0, 30 + n, 60 + n] for n in range(8)])
    with torch.no_grad():
        ids = pre.generate(starts, max_new_tokens=12, do_sample=False)
    return pre, delta, [example(row.tolist(), 3) for row in ids]


def test_ama_gives_the_block_back_that_the_responses_ask_for(ruined: Asked) -> None:
    pre, delta, examples = ruined
    before = {name: tensor.clone() for name, tensor in pre.state_dict().items()}
    how = Adaptive(blocks=2, learning_rate=0.2, epochs=5, batch_size=4, mean=0.4)
    found, _ = find_shares(pre, delta, examples, how)
    assert found.shares[1] > 0.45
    assert sum(found.shares) / 2 == pytest.approx(0.4)
    assert found.after < found.before
    for name, tensor in pre.state_dict().items():
        assert torch.equal(tensor, before[name])


def test_the_penalty_keeps_the_shares_at_their_mean(ruined: Asked) -> None:
    shares = {}
    for penalty in (0.0, 10.0):
        how = Adaptive(blocks=2, learning_rate=0.02, epochs=10, penalty=penalty)
        found, _ = find_shares(*ruined, how)
        shares[penalty] = found.shares
    assert shares[0.0][1] > 0.21
    assert shares[10.0] == pytest.approx((0.2, 0.2), abs=0.004)


def test_the_penalty_is_the_authors_for_their_26_layers() -> None:
    """25 / (|l - 13| + 1): a block of one layer each at 12 and 13, and the three at the end."""
    assert pulls([(12, 13), (13, 14)], 26).tolist() == [25 / 2, 25]
    last = pulls([(23, 26)], 26).item()
    assert last == pytest.approx(25 / 11 + 25 / 12 + 25 / 13)


@pytest.mark.parametrize(
    ("options", "seed"),
    [({"epochs": 2}, 0), ({"batch_size": 3}, 0), ({}, 1), ({"epsilon": 0.5}, 0)],
)
def test_options_of_ama_change_what_is_found(
    options: dict[str, Any], seed: int, ruined: Asked
) -> None:
    common = {"blocks": 2, "batch_size": 4}
    found, _ = find_shares(*ruined, Adaptive(**common))
    other, _ = find_shares(*ruined, Adaptive(**(common | options)), seed)
    again, _ = find_shares(*ruined, Adaptive(**common))
    assert found.shares == again.shares
    assert abs(found.shares[0] - other.shares[0]) > 1e-6


def test_ama_gradient_is_that_of_finite_differences() -> None:
    """One step of Adam moves v_k by the sign of its gradient, which is checked by differences."""
    pre, aligned = tiny_llama(), perturbed(tiny_llama(), 7, 0.1)
    delta = {n: t - pre.state_dict()[n] for n, t in floating_tensors(aligned).items()}
    examples = [example([0, 5, 9, 30, 12, 44, 1], 2), example([0, 8, 9, 77], 2, 3.0)]

    def loss(v: torch.Tensor) -> float:
        shares, block = shares_of(v, 0.2, 0.2), block_of(pre, list(delta), 2)
        model = tiny_llama()
        with torch.no_grad():
            for name, tensor in floating_tensors(model).items():
                tensor += (1 - shares[block[name]]) * delta[name]
            total = 0.0
            for item in examples:
                ids = torch.from_numpy(item.path.ids.astype(np.int64))[None]
                logp = torch.log_softmax(model(input_ids=ids).logits[0, 1:-1], -1)
                total -= item.weight * logp.gather(1, ids[0, 2:, None]).sum().item()
        return total / (5 * 1 + 2 * 3)

    start = torch.full((2,), math.log(0.2 / 0.8))
    found, _ = find_shares(pre, delta, examples, Adaptive(blocks=2, penalty=0, learning_rate=0.05))
    assert found.before == pytest.approx(loss(start), rel=1e-4)
    up = start + torch.tensor([0.05, -0.05])
    down = start - torch.tensor([0.05, -0.05])
    better = min((up, down), key=loss)
    assert found.shares == pytest.approx(shares_of(better, 0.2, 0.2).tolist(), abs=1e-4)
    assert found.after == pytest.approx(loss(better), rel=1e-4)


@pytest.mark.parametrize(("pre", "aligned"), [("base", "sft"), ("sft", "pref"), ("one", "two")])
def test_ama_command(
    pre: str,
    aligned: str,
    kin: dict[str, Path],
    tmp_path: Path,
    rows: dict[str, list[dict[str, Any]]],
) -> None:
    mixed = [*rows["pair"], *rows["demonstration"], *rows["label"]]
    data = write_rows(tmp_path / "good.jsonl", mixed)
    text = call(
        *("merge", kin[pre], kin[aligned], "--method", "ama", "--out", tmp_path / "out"),
        *("--data", data, "--blocks", 2, "--mean", 0.3),
    )
    assert "layers 0 to 0:" in text
    found = json.loads((tmp_path / "out" / "merge.json").read_text())["found"]
    assert sum(found["shares"]) / 2 == pytest.approx(0.3, abs=1e-6)
    assert found["shares"][0] != found["shares"][1]
    theirs = [whole(kin, n) if n in ("sft", "pref") else weights(kin[n]) for n in (pre, aligned)]
    first, second = found["shares"]
    expected = {}
    for name in theirs[0]:
        last = ".layers.1." in name or name in ("model.norm.weight", "lm_head.weight")
        share = second if last else first
        expected[name] = share * theirs[0][name] + (1 - share) * theirs[1][name]
    assert_weights(tmp_path / "out", expected)


def test_good_sides(tmp_path: Path, rows: dict[str, list[dict[str, Any]]]) -> None:
    tokenizer = make_tokenizer()

    def count(kind: str, min_score: float | None = None) -> int:
        file = write_rows(tmp_path / f"{kind}.jsonl", rows[kind])
        records, refused = read_records(Stream(file, name=kind), tokenizer, 128)
        assert not refused
        return len(good_examples(records, min_score))

    assert count("pair") == 8
    assert count("label") == 4
    assert count("demonstration") == 10
    assert count("score", 0.5) == 4
    assert count("group", 0.6) == 16
    with pytest.raises(ValueError, match="--min-score"):
        count("group")
    with pytest.raises(ValueError, match="no response in the data is good"):
        count("score", 1.5)


# One adapter


@pytest.mark.parametrize("options", [{}, {"use_dora": True}])
def test_one_adapter_goes_into_its_base_as_peft_merges_it(
    options: dict[str, Any], kin: dict[str, Path], tmp_path: Path
) -> None:
    adapter = make_adapter(kin["base"], tmp_path / "adapter", 3, **options)
    text = call("merge", adapter, "--out", tmp_path / "out")
    assert f"{tmp_path / 'out'}: one adapter into its base" in text
    expected = whole(kin | {"it": adapter}, "it")
    assert_weights(tmp_path / "out", expected)
    told = json.loads((tmp_path / "out" / "merge.json").read_text())
    assert told["base"] == str(kin["base"])
    own, base = told["distances"]
    assert own["kl"] < 1e-7 < 1e-4 < base["kl"]
    ends = json.loads((tmp_path / "out" / "generation_config.json").read_text())["eos_token_id"]
    assert ends == 1


def test_one_adapter_whose_base_has_moved(kin: dict[str, Path], tmp_path: Path) -> None:
    adapter = Path(shutil.copytree(kin["sft"], tmp_path / "adapter"))
    edit(adapter / "adapter_config.json", base_model_name_or_path="/nowhere/at/all")
    call("merge", adapter, "--base", kin["base"], "--out", tmp_path / "out")
    assert_weights(tmp_path / "out", whole(kin, "sft"))


def test_no_room_is_told_before_anything_is_read(
    kin: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda place: usage._replace(free=100_000))
    monkeypatch.setattr(into_base, "open_whole", None)
    text = call("merge", kin["sft"], "--out", tmp_path / "out", code=1)
    size = (kin["base"] / "model.safetensors").stat().st_size
    needed = f"{into_base.weight_bytes(str(kin['base'])) / 1e6:,.1f} MB"
    assert f"0.1 MB free, the merged model of {kin['sft']} needs {needed}" in text
    assert 0 <= size - into_base.weight_bytes(str(kin["base"])) < 10_000
    assert not list(tmp_path.iterdir())


# Bad input


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("{one}", "two or more models, found 1"),
        ("{sft} --method ties", "--method ties merges several models"),
        ("{sft} --weights 1", "--weights has no meaning for one adapter"),
        ("{orphan}", "no such folder; say where its base lies with --base"),
        ("{one} {two} --base {nowhere} --method ties", "nowhere"),
        ("{sft} {sft}", "one model is named twice"),
        ("{sft} {pref} {one} --method slerp", "slerp merges exactly two models, found 3"),
        ("{one} {two} --weights 1", "found 1 --weights for 2 models"),
        (
            "{one} {two} --weights 1 --weights -1",
            "must be 0 or more and not all 0, found 1.0, -1.0",
        ),
        ("{one} {two} --weights 0 --weights 0", "not all 0"),
        ("{one} {two} --weights nan --weights 1", "must be 0 or more"),
        ("{sft} {pref} --method ties --density 0", "must lie in (0, 1], found 0.0"),
        ("{sft} {pref} --method ties --density 1.2", "must lie in (0, 1], found 1.2"),
        ("{sft} {pref} --density .5", "--density has no meaning for linear"),
        ("{sft} {pref} --seed 1", "--seed has no meaning for linear"),
        ("{sft} {pref} --mean .1", "have no meaning for linear: leave them out"),
        ("{sft} {pref} --method tise", "did you mean 'ties'?"),
        ("{one} {two} --method ties", "name the base with --base"),
        ("{one} {two} --method slerp", "name the base with --base"),
        ("{sft} {stranger}", "adapters of different bases"),
        ("{sft} {rank}", "adapters of different rank: {sft} has r = 4, {rank} has r = 2"),
        ("{sft} {pref} --base {one}", "was trained on {base}"),
        ("{sft} {dora}", "type LORA with use_dora"),
        ("{one} {gpt}", "is llama, {gpt} is gpt2"),
        ("{one} {wide}", "in {one} and (80, 32) in {wide}"),
        ("{one} {deep}", "do not have the same weights"),
        ("{one} {words}", "different vocabularies"),
        ("{one} {nowhere}", "nowhere"),
        ("{one} {two} --out {base}", "exists already: choose another --out"),
        ("{one} {two} --method ama", "give --data"),
        (
            "{one} {two} --method ama --data {data} --weights 1 --weights 1",
            "--weights has no meaning",
        ),
        ("{one} {two} --method ama --data {data} --mean 1", "--mean must lie between 0 and 1"),
        ("{one} {two} --method ama --data {data} --blocks 3", "the model has 2 layers"),
        ("{one} {two} --method ama --data {data} --epochs 0", "--epochs must be 1 or more"),
        ("{one} {two} --method ama --data {data} --epsilon -1", "--epsilon must be 0 or more"),
        ("{one} {two} --data {empty}", "no row can be used"),
        ("{one} {two} --data {data} --max-length 2", "no row can be used"),
        ("{one} {two} --data {nowhere}", "nowhere"),
        ("{sft} {orphan}", "orphan_base"),
        ("{one} {quantised}", "{quantised} is quantised"),
    ],
)
def test_bad_input_is_one_line_and_nothing_is_written(
    words: str, message: str, strangers: dict[str, Path], tmp_path: Path
) -> None:
    given = words.format(**strangers).split()
    out = [] if "--out" in given else ["--out", tmp_path / "out"]
    text = call("merge", *given, *out, code=1)
    assert "error:" in text
    assert " ".join(message.format(**strangers).split()) in text
    assert "Traceback" not in text
    assert not list(tmp_path.iterdir())


def edit(file: Path, **changes: Any) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


@pytest.fixture(scope="module")
def strangers(kin: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The kin, and what does not fit with them."""
    root = tmp_path_factory.mktemp("strangers")
    torch.manual_seed(0)
    gpt = GPT2Config(n_layer=2, n_head=2, n_embd=8, vocab_size=400, n_positions=64)
    wide = LlamaConfig(**{**TINY, "intermediate_size": 80})
    deep = LlamaConfig(**{**TINY, "num_hidden_layers": 3})
    from_config = AutoModelForCausalLM.from_config
    data = write_rows(root / "data.jsonl", [{"prompt": "a", "completion": " b"}])
    orphan = shutil.copytree(kin["sft"], root / "orphan")
    edit(orphan / "adapter_config.json", base_model_name_or_path=str(root / "orphan_base"))
    quantised = shutil.copytree(kin["two"], root / "quantised")
    edit(quantised / "config.json", quantization_config={"quant_method": "bitsandbytes"})
    return kin | {
        "stranger": make_adapter(kin["one"], root / "stranger", 5),
        "rank": make_adapter(kin["base"], root / "rank", 5, r=2),
        "dora": make_adapter(kin["base"], root / "dora", 5, use_dora=True),
        "gpt": save(from_config(gpt), root / "gpt"),
        "wide": save(from_config(wide), root / "wide"),
        "deep": save(from_config(deep), root / "deep"),
        "words": save(tiny_llama(), root / "words", vocab_size=300),
        "orphan": orphan,
        "quantised": quantised,
        "nowhere": root / "nowhere",
        "data": data,
        "empty": write_rows(root / "empty.jsonl", [{"prompt": "a"}]),
    }


@pytest.mark.filterwarnings("ignore::UserWarning")  # PEFT warns of it too, and goes on
def test_an_adapter_on_tied_weights_is_refused(tmp_path: Path) -> None:
    config = LlamaConfig(**{**TINY, "tie_word_embeddings": True})
    base = save(AutoModelForCausalLM.from_config(config), tmp_path / "base")
    adapter = make_adapter(base, tmp_path / "a", 1, target_modules=["embed_tokens"])
    with pytest.raises(ValueError, match="is tied to another layer's"):
        load_family([str(base), str(adapter)], None, needs_base=False)
