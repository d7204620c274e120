"""Model and adapter folders that are not what they say, made from whole ones."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForCausalLM,
    BertConfig,
    BertForMaskedLM,
    Gemma3Config,
    Gemma3ForConditionalGeneration,
    T5Config,
    T5ForConditionalGeneration,
    ViTConfig,
    ViTForImageClassification,
)

from support.tiny import TINY, make_tokenizer, tiny_llama

Damage = Callable[[Path], None]
WEIGHTS, CONFIG, ADAPTER = "model.safetensors", "config.json", "adapter_model.safetensors"


def whole(folder: Path) -> Path:
    """A tiny Llama with its tokenizer."""
    tiny_llama().save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
    return folder


def adapter(base: Path, folder: Path, **options: Any) -> Path:
    """A LoRA adapter of a folder whose every tensor is random."""
    settings = {"r": 2, "target_modules": ["q_proj", "v_proj"], **options}
    model: Any = AutoModelForCausalLM.from_pretrained(base)
    model = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", **settings))
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.normal_(std=0.1)
    model.save_pretrained(folder)
    return folder


def edit(name: str, **changes: Any) -> Damage:
    """Other values of a JSON file; None takes a key out."""

    def damage(folder: Path) -> None:
        content = json.loads((folder / name).read_text()) | changes
        text = json.dumps({key: value for key, value in content.items() if value is not None})
        (folder / name).write_text(text)

    return damage


def written(name: str, text: str) -> Damage:
    return lambda folder: void((folder / name).write_text(text))


def gone(*names: str) -> Damage:
    def damage(folder: Path) -> None:
        for name in names:
            (folder / name).unlink()

    return damage


def cut(name: str, share: float) -> Damage:
    """The file ends before its end."""
    return lambda folder: os.truncate(folder / name, int(share * (folder / name).stat().st_size))


def tensors(change: Callable[[dict[str, torch.Tensor]], Any], name: str = WEIGHTS) -> Damage:
    """Other tensors in a safetensors file."""

    def damage(folder: Path) -> None:
        found = load_file(folder / name)
        change(found)
        save_file(found, folder / name, {"format": "pt"})

    return damage


def without(count: int, every: int = 3) -> Callable[[dict[str, torch.Tensor]], None]:
    def change(found: dict[str, torch.Tensor]) -> None:
        for key in sorted(found)[::every][:count]:
            del found[key]

    return change


def renamed(old: str, new: str) -> Callable[[dict[str, torch.Tensor]], None]:
    def change(found: dict[str, torch.Tensor]) -> None:
        for key in list(found):
            found[key.replace(old, new)] = found.pop(key)

    return change


def cropped(part: str) -> Callable[[dict[str, torch.Tensor]], None]:
    def change(found: dict[str, torch.Tensor]) -> None:
        for key in found:
            if part in key:
                found[key] = found[key][:-1].clone()

    return change


def sharded(folder: Path) -> None:
    AutoModelForCausalLM.from_pretrained(folder).save_pretrained(folder, max_shard_size="40KB")
    (folder / WEIGHTS).unlink(missing_ok=True)


def shard_gone(folder: Path) -> None:
    sharded(folder)
    sorted(folder.glob("model-*.safetensors"))[1].unlink()


def shard_unnamed(folder: Path) -> None:
    """The index does not name what one of the shards holds."""
    sharded(folder)
    index = folder / "model.safetensors.index.json"
    content = json.loads(index.read_text())
    last = sorted(set(content["weight_map"].values()))[-1]
    content["weight_map"] = {k: v for k, v in content["weight_map"].items() if v != last}
    index.write_text(json.dumps(content))


def other(model: Any) -> Damage:
    """A model of another sort in the folder; the tokenizer stays."""

    def damage(folder: Path) -> None:
        for name in (WEIGHTS, CONFIG, "generation_config.json"):
            (folder / name).unlink(missing_ok=True)
        model().save_pretrained(folder)

    return damage


def nested() -> Any:
    """Images and text: the text part is a language model of its own."""
    text = {**TINY, "head_dim": 8, "sliding_window": 16}
    vision = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1}
    vision |= {"num_attention_heads": 2, "image_size": 28, "patch_size": 14}
    config = Gemma3Config(text_config=text, vision_config=vision, mm_tokens_per_image=4)
    torch.manual_seed(0)
    return Gemma3ForConditionalGeneration(config)


def t5() -> Any:
    sizes = {"vocab_size": 400, "d_model": 16, "d_ff": 16, "num_layers": 1, "num_heads": 2}
    return T5ForConditionalGeneration(T5Config(**sizes, d_kv=8))


def bert() -> Any:
    sizes = {"vocab_size": 400, "hidden_size": 16, "num_hidden_layers": 1}
    return BertForMaskedLM(BertConfig(**sizes, num_attention_heads=2, intermediate_size=16))


def vit() -> Any:
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    return ViTForImageClassification(
        ViTConfig(**sizes, intermediate_size=16, image_size=28, patch_size=14)
    )


def void(anything: object) -> None:
    return None


def emptied(folder: Path) -> None:
    for file in folder.iterdir():
        file.unlink()


def a_file(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.write_text("not a folder")


MODELS: dict[str, Damage] = {
    "7 of 21 tensors missing": tensors(without(7)),
    "1 tensor missing": tensors(without(1)),
    "head missing, tying switched off": tensors(lambda found: found.pop("lm_head.weight")),
    "tensors of another architecture": tensors(renamed("self_attn", "attention")),
    "a tensor too many": tensors(lambda found: found.update(extra=torch.ones(2))),
    "a layer too many": edit(CONFIG, num_hidden_layers=1),
    "a layer too few": edit(CONFIG, num_hidden_layers=3),
    "tensors of another shape": tensors(cropped("up_proj")),
    "another width in config.json": edit(CONFIG, intermediate_size=48),
    "weights cut short": cut(WEIGHTS, 0.5),
    "weights cut in the header": cut(WEIGHTS, 0.001),
    "weights empty": written(WEIGHTS, ""),
    "weights are no safetensors": written(WEIGHTS, "version https://git-lfs" * 40),
    "no weights": gone(WEIGHTS),
    "weights link to nothing": lambda folder: (
        (folder / WEIGHTS).unlink(),
        (folder / WEIGHTS).symlink_to("blobs/none"),
    )[1],
    "pickled weights that are none": lambda folder: (
        (folder / WEIGHTS).unlink(),
        void((folder / "pytorch_model.bin").write_text("not a pickle")),
    )[1],
    "a shard missing": shard_gone,
    "a shard not in the index": shard_unnamed,
    "index is no JSON": lambda folder: (
        sharded(folder),
        void((folder / "model.safetensors.index.json").write_text("{")),
    )[1],
    "no config.json": gone(CONFIG),
    "config.json empty": written(CONFIG, ""),
    "config.json is {}": written(CONFIG, "{}"),
    "config.json is a list": written(CONFIG, "[]"),
    "config.json cut short": cut(CONFIG, 0.5),
    "0 heads": edit(CONFIG, num_attention_heads=0),
    "0 key-value heads": edit(CONFIG, num_key_value_heads=0),
    "5 heads in 32 dimensions": edit(CONFIG, num_attention_heads=5, head_dim=None),
    "hidden size is a word": edit(CONFIG, hidden_size="wide"),
    "negative vocabulary": edit(CONFIG, vocab_size=-1),
    "unknown model_type": edit(CONFIG, model_type="llamma"),
    "unknown activation": edit(CONFIG, hidden_act="sulu"),
    "unknown dtype": edit(CONFIG, dtype="float99", torch_dtype=None),
    "odd rope": edit(CONFIG, rope_parameters={"rope_type": "spiral"}, rope_scaling=None),
    "code of its own": edit(
        CONFIG, model_type="mine", auto_map={"AutoConfig": "mine.Mine", "AutoModel": "mine.M"}
    ),
    "quantised by a library that is absent": edit(
        CONFIG, quantization_config={"quant_method": "gptq", "bits": 4}
    ),
    "quantised in an unknown way": edit(CONFIG, quantization_config={"quant_method": "squeeze"}),
    "generation_config.json is no JSON": written("generation_config.json", "{"),
    "tokenizer.json is {}": written("tokenizer.json", "{}"),
    "tokenizer.json cut short": cut("tokenizer.json", 0.5),
    "tokenizer.json empty": written("tokenizer.json", ""),
    "tokenizer_config.json is no JSON": written("tokenizer_config.json", "{"),
    "tokenizer is ByT5": edit("tokenizer_config.json", tokenizer_class="ByT5Tokenizer"),
    "tokenizer of an unknown class": edit("tokenizer_config.json", tokenizer_class="MyTokenizer"),
    "no tokenizer": gone("tokenizer.json", "tokenizer_config.json"),
    "tokenizer of more words": edit(CONFIG, vocab_size=300),
    "encoder and decoder (T5)": other(t5),
    "encoder only (BERT)": other(bert),
    "images only (ViT)": other(vit),
    "images and text (Gemma 3)": other(nested),
    "an empty folder": emptied,
    "a file": a_file,
}

ADAPTERS: dict[str, Damage] = {
    "half of the tensors": tensors(without(4, 2), ADAPTER),
    "no tensors": tensors(lambda found: found.clear(), ADAPTER),
    "tensors of other names": tensors(renamed("q_proj", "query"), ADAPTER),
    "a tensor too many": tensors(
        lambda found: found.update({"base_model.model.lm_head.lora_A.weight": torch.ones(2, 32)}),
        ADAPTER,
    ),
    "another rank in the configuration": edit("adapter_config.json", r=4),
    "tensors of another shape": tensors(cropped("lora_B"), ADAPTER),
    "weights cut short": cut(ADAPTER, 0.5),
    "weights empty": written(ADAPTER, ""),
    "no weights": gone(ADAPTER),
    "unknown peft_type": edit("adapter_config.json", peft_type="LORRA"),
    "no peft_type": edit("adapter_config.json", peft_type=None),
    "configuration is {}": written("adapter_config.json", "{}"),
    "configuration is no JSON": written("adapter_config.json", "{"),
    "configuration is a list": written("adapter_config.json", "[]"),
    "an option nobody knows": edit("adapter_config.json", use_magic=True),
    "a target that the base has not": edit(
        "adapter_config.json", target_modules=["q_proj", "v_proj", "z_proj"]
    ),
    "only targets that the base has not": edit("adapter_config.json", target_modules=["z_proj"]),
    "layers that the base has not": edit("adapter_config.json", layers_to_transform=[0, 7]),
    "more targets than tensors": edit(
        "adapter_config.json", target_modules=["q_proj", "v_proj", "k_proj"]
    ),
    "rank 0": edit("adapter_config.json", r=0),
    "no base named": edit("adapter_config.json", base_model_name_or_path=None),
    "a base that is not there": edit(
        "adapter_config.json", base_model_name_or_path="/none/of/this"
    ),
    "its own base": lambda folder: edit("adapter_config.json", base_model_name_or_path=str(folder))(
        folder
    ),
}
