"""TRL as a second opinion: its own trainers, on the same model and the same rows.

Token ids and masks are identical, the first loss and the log-probabilities before training agree to
1e-4, the log-probabilities after five full-batch AdamW steps to 1e-3. Where the definitions differ by
name, `CASES` says which TRL setting is the same loss:

- `ipo` is TRL's with `average: true` (TRL divides a log-ratio by its response's length);
- `kto` with `baseline: zero` is TRL's `apo_zero_unpaired` (TRL's `kto` estimates its reference point
  from mismatched prompts and responses, ours from the steps before);
- TRL's `sigmoid` reads no label smoothing and its `robust` is another loss. Its `aot` has the smoothed
  form of cDPO, on log-ratios sorted over the batch: with one pair a batch, nothing is sorted.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from onestage.data.encoded import Encoded
from onestage.data.packing import pack_records
from onestage.models.policy import Policy
from onestage.runfolder import read_metrics
from onestage.training.build import build
from onestage.training.imports import find
from onestage.training.loop import take_step
from onestage.training.pipeline import carry_out
from onestage.training.recipe import parse_recipe

pytest.importorskip("trl")
datasets = pytest.importorskip("datasets")

STEPS = 5
BEGIN, END = "<|begin|>", "<|end|>"
TEXTS = [
    ("What grows in the garden?", " Beans, and a few tall flowers.", " No."),
    ("Name a river.", " The Danube.", " A river is water that flows to the sea, as rivers do."),
    ("Why is the sky blue?", " Short waves scatter more than long ones.", " It is not; it is red."),
    ("Why is the sky dark at night?", " The sun is behind us.", " Short nights, long days."),
    ("Say it in one word: yes or no?", " Yes", " Well, that depends on whom you ask, my friend."),
    ("How many legs has a spider?", " Eight legs.", " Eight and a half legs, give or take."),
]
"""Prompts, good answers, bad answers: of different lengths, some beginning alike."""

PAIRS = [{"prompt": p, "chosen": good, "rejected": bad} for p, good, bad in TEXTS]
DEMONSTRATIONS = [{"prompt": p, "completion": good} for p, good, _ in TEXTS]
LABELS = [
    {"prompt": p, "completion": text, "label": label}
    for p, good, bad in TEXTS
    for text, label in ((good, True), (bad, False))
][:-1]  # not as many bad as good, so that a wrong mean shows


def one_step(run: Any, parameters: list[Any]) -> Any:
    weights = run.schedule.weigh(run.step)
    return take_step(run, parameters, run.feeds.draw(weights), weights)


@dataclass(frozen=True)
class Case:
    """The same loss by our name and by TRL's."""

    trainer: str
    rows: list[dict[str, Any]]
    objective: dict[str, Any]
    theirs: dict[str, Any] = field(default_factory=dict)
    one_by_one: bool = False
    """TRL takes the full batch as gradient accumulation over single rows."""


CASES = {
    "sft": Case("SFT", DEMONSTRATIONS, {"name": "sft"}, {"completion_only_loss": True}),
    "dft": Case(
        "SFT",
        DEMONSTRATIONS,
        {"name": "sft", "reweight": "dft"},
        {"completion_only_loss": True, "loss_type": "dft"},
    ),
    "dpo": Case("DPO", PAIRS, {"name": "dpo", "beta": 0.2}, {"beta": 0.2, "loss_type": "sigmoid"}),
    "dpo-smoothed": Case(
        "DPO",
        PAIRS,
        {"name": "dpo", "beta": 0.2, "label_smoothing": 0.2},
        {"beta": 0.2, "loss_type": "aot", "label_smoothing": 0.2},
        one_by_one=True,
    ),
    "ipo": Case(
        "DPO",
        PAIRS,
        {"name": "ipo", "beta": 0.3, "average": True},
        {"beta": 0.3, "loss_type": "ipo"},
    ),
    "kto": Case(
        "KTO",
        LABELS,
        {
            **{"name": "kto", "beta": 0.2, "baseline": "zero"},
            **{"desirable_weight": 1.2, "undesirable_weight": 0.7},
        },
        {
            **{"beta": 0.2, "loss_type": "apo_zero_unpaired"},
            **{"desirable_weight": 1.2, "undesirable_weight": 0.7},
        },
    ),
}

FIRST_LOSS = {
    # What is known without any implementation: every log-ratio is 0 before training.
    "dpo": np.log(2),
    "dpo-smoothed": np.log(2),
    "ipo": (1 / 0.6) ** 2,
    "kto": (6 * 1.2 + 5 * 0.7) / 11 / 2,
}


@dataclass(frozen=True)
class Outcome:
    """What a trainer made of the rows; log-probabilities are summed over each response."""

    ids: list[list[int]]
    """Token ids of each response with its prompt, in the order of the rows."""
    masks: list[list[int]]
    """1 where the token is scored."""
    loss: list[float]
    """Of each step."""
    before: torch.Tensor
    after: torch.Tensor


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Llama with random weights and a byte-level tokenizer that puts BOS in front."""
    folder = tmp_path_factory.mktemp("tiny-llama")
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=[BEGIN, END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([text for texts in TEXTS for text in texts], trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BEGIN} $A", special_tokens=[(BEGIN, 0)]
    )
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=BEGIN, eos_token=END, pad_token=END
    )
    wrapped.save_pretrained(folder)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(wrapped),
        hidden_size=48,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=128,
        initializer_range=0.2,  # far from uniform, so that a wrong position shows
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=1,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


def train_ours(case: Case, model: Path, folder: Path) -> Outcome:
    """Five steps of onestage."""
    folder.mkdir()
    data = folder / "rows.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in case.rows))
    recipe = parse_recipe(
        {
            "model": {"name": str(model), "dtype": "float32"},
            "data": [{"name": "rows", "path": str(data)}],
            "objective": case.objective,
            "train": {
                **{"max_steps": STEPS, "batch_size": len(case.rows), "learning_rate": 1e-3},
                **{"lr_scheduler_type": "constant", "optim": "adamw_torch", "max_length": 128},
                **{"max_grad_norm": 1.0, "tokens_per_row": 128},
            },
            "cache_dir": str(folder / "cache"),
        }
    )
    session = build(recipe, folder / "run", say=lambda line: None)
    session.fill_reference()
    run, store = session, session.data.train["rows"]
    records = [store[number] for number in range(len(store))]
    paths = [path for record in records for path in record.paths]
    parameters = list(run.policy.parameters())
    before = response_logps(run.policy, records)
    run.policy.train()
    losses = []
    for _ in range(STEPS):
        losses.append(one_step(run, parameters).loss)
        run.step += 1
    return Outcome(
        ids=[path.ids.tolist() for path in paths],
        masks=[
            [int(any(a <= at < b for a, b in path.spans)) for at in range(len(path.ids))]
            for path in paths
        ],
        loss=losses,
        before=before,
        after=response_logps(run.policy, records),
    )


def response_logps(policy: Policy, records: list[Encoded]) -> torch.Tensor:
    """Log-probabilities of the responses, in the order of the records, through packed rows."""
    found = torch.zeros(sum(len(record.scores) for record in records))
    with policy.evaluating():
        for row in pack_records(records, 128).rows:
            found.index_add_(0, torch.from_numpy(row.tree.response_K), policy(row))
    return found


def train_theirs(case: Case, model: Path, folder: Path) -> Outcome:
    """Five steps of TRL's trainer."""
    import trl

    size = len(case.rows)
    config = getattr(trl, f"{case.trainer}Config")(
        output_dir=str(folder),
        max_steps=STEPS,
        per_device_train_batch_size=1 if case.one_by_one else size,
        gradient_accumulation_steps=size if case.one_by_one else 1,
        learning_rate=1e-3,
        lr_scheduler_type="constant",
        optim="adamw_torch",
        weight_decay=0.0,
        max_grad_norm=1.0,
        max_length=128,
        **{"bf16": False, "use_cpu": True, "gradient_checkpointing": False},
        **{"logging_steps": 1, "report_to": "none", "save_strategy": "no", "disable_tqdm": True},
        **case.theirs,
    )
    trainer = getattr(trl, f"{case.trainer}Trainer")(
        model=str(model), args=config, train_dataset=datasets.Dataset.from_list(case.rows)
    )
    rows = [trainer.train_dataset[number] for number in range(size)]
    before = their_logps(trainer, rows)
    trainer.train()
    ids, masks = their_tokens(rows)
    return Outcome(
        ids=ids,
        masks=masks,
        loss=[line["loss"] for line in trainer.state.log_history if "loss" in line],
        before=before,
        after=their_logps(trainer, rows),
    )


def their_tokens(rows: list[Mapping[str, Any]]) -> tuple[list[list[int]], list[list[int]]]:
    """Ids and masks as the data sets of TRL's trainers hold them."""
    if "labels" in rows[0]:
        return (
            [row["input_ids"] for row in rows],
            [[int(label != -100) for label in row["labels"]] for row in rows],
        )
    sides = ("chosen_ids", "rejected_ids") if "chosen_ids" in rows[0] else ("completion_ids",)
    parts = [(row["prompt_ids"], row[side]) for row in rows for side in sides]
    return [a + b for a, b in parts], [[0] * len(a) + [1] * len(b) for a, b in parts]


def their_logps(trainer: Any, rows: list[Mapping[str, Any]]) -> torch.Tensor:
    """The same log-probabilities by TRL's collator and TRL's head, in our order."""
    batch = trainer.data_collator(rows)
    labels = batch.get("labels")
    if labels is None:
        labels = batch["input_ids"].masked_fill(batch["completion_mask"] == 0, -100)
    with torch.no_grad():
        output = trainer.model(
            input_ids=batch["input_ids"],
            attention_mask=batch["attention_mask"],
            labels=labels,
            fused_lm_head=True,
        )
    logps: torch.Tensor = output.log_probs.sum(-1)
    if "chosen_ids" in rows[0]:  # all chosen, then all rejected
        logps = torch.stack(logps.chunk(2), dim=1).flatten()
    return logps


@pytest.mark.parametrize("name", CASES)
def test_agrees_with_trl(name: str, model_folder: Path, tmp_path: Path) -> None:
    case = CASES[name]
    ours = train_ours(case, model_folder, tmp_path / "ours")
    theirs = train_theirs(case, model_folder, tmp_path / "theirs")
    assert ours.ids == theirs.ids
    assert ours.masks == theirs.masks
    assert sum(map(sum, ours.masks)) > 40
    torch.testing.assert_close(ours.before, theirs.before, atol=1e-4, rtol=0)
    assert ours.loss[0] == pytest.approx(theirs.loss[0], abs=1e-4)
    if name in FIRST_LOSS:
        assert ours.loss[0] == pytest.approx(FIRST_LOSS[name], abs=1e-4)
    assert len(ours.loss) == len(theirs.loss) == STEPS
    assert ours.loss == pytest.approx(theirs.loss, abs=1e-3)
    torch.testing.assert_close(ours.after, theirs.after, atol=1e-3, rtol=0)
    # Agreement says something only where training did something. (DFT's -p log p rises up to p = 1/e.)
    assert abs(ours.loss[-1] - ours.loss[0]) > 0.02 * ours.loss[0]
    assert (ours.loss[-1] < ours.loss[0]) == (name != "dft")
    assert (ours.after - ours.before).abs().min() > 0.01
    assert (ours.after - ours.before).abs().max() > 1


def test_another_loss_is_told_apart(model_folder: Path, tmp_path: Path) -> None:
    """The comparison can fail: DPO with another beta ends elsewhere, though it begins alike."""
    right = train_ours(CASES["dpo"], model_folder, tmp_path / "right")
    objective = {"name": "dpo", "beta": 0.25}
    wrong = train_ours(Case("DPO", PAIRS, objective), model_folder, tmp_path / "wrong")
    assert wrong.loss[0] == pytest.approx(right.loss[0], abs=1e-4)
    assert (wrong.after - right.after).abs().max() > 0.01


IMPORTED: dict[str, tuple[str, list[dict[str, Any]], dict[str, Any]]] = {
    "sft": ("SFT", DEMONSTRATIONS, {}),
    "ipo": ("DPO", PAIRS, {"loss_type": "ipo", "beta": 0.2}),
}


@pytest.mark.parametrize("name", IMPORTED)
def test_an_imported_configuration_trains_as_it_did(
    name: str, model_folder: Path, tmp_path: Path
) -> None:
    """The arguments of a TRL run through `onestage import`, and the same in TRL: the same losses."""
    import trl

    trainer, rows, own = IMPORTED[name]
    given = {
        **{"max_steps": 4, "per_device_train_batch_size": 3, "gradient_accumulation_steps": 2},
        **{"learning_rate": 1e-2, "lr_scheduler_type": "cosine", "warmup_steps": 0.5},
        **{"weight_decay": 0.1, "adam_beta2": 0.95, "max_grad_norm": 0.5, "max_length": 128},
        **{"logging_steps": 1, "report_to": "none", "bf16": False, **own},
    }
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    where = {"model_name_or_path": str(model_folder), "datasets": [{"path": str(file)}]}
    recipe = find("trl")().carry({**given, **where}).recipe
    recipe["cache_dir"] = str(tmp_path / "cache")
    carry_out(parse_recipe(recipe), tmp_path / "run", say=lambda line: None, self_check=False)
    config = getattr(trl, f"{trainer}Config")(
        output_dir=str(tmp_path / "theirs"),
        **{"use_cpu": True, "gradient_checkpointing": False, "disable_tqdm": True},
        **{"save_strategy": "no", **given},
    )
    theirs = getattr(trl, f"{trainer}Trainer")(
        model=str(model_folder), args=config, train_dataset=datasets.Dataset.from_list(rows)
    )
    theirs.train()
    ours = [line["loss"] for line in read_metrics(tmp_path / "run")]
    wanted = [line["loss"] for line in theirs.state.log_history if "loss" in line]
    assert ours == pytest.approx(wanted, abs=1e-4)
    assert abs(ours[-1] - ours[0]) > 0.1
