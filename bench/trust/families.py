"""Chat templates written after the public formats of model families, with their markers.

Of each: the template, the texts that are single tokens of its tokenizer, and what ends a reply. Beside
TRL's own files these have the traps that its collection lacks: markers that are no special token, that
take white space in, that are no token at all; prompts that are not rendered; spaces that belong to both.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Family:
    template: str
    tokens: tuple[str, ...]
    end: str
    """What the last scored token of a reply must say."""
    eos: str = "</s>"
    strips: bool = False
    """Its markers take the white space around them in."""


CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
IM = ("<|im_start|>", "<|im_end|>")

FAMILIES = {
    "ChatML": Family(CHATML, IM, "<|im_end|>", eos="<|im_end|>"),
    "ChatML on a base model (EOS is another token)": Family(CHATML, IM, "<|im_end|>"),
    "ChatML, markers are plain text": Family(CHATML, (), "<|im_end|>"),
    "ChatML, markers take white space in": Family(CHATML, IM, "<|im_end|>", strips=True),
    "ChatML without a generation prompt": Family(
        CHATML.split("{% if add_gen", maxsplit=1)[0], IM, "<|im_end|>"
    ),
    "Llama 3": Family(
        "{{ bos_token }}{% for m in messages %}<|start_header_id|>{{ m.role }}<|end_header_id|>\n\n"
        "{{ m.content | trim }}<|eot_id|>{% endfor %}{% if add_generation_prompt %}"
        "<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}",
        ("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
        "<|eot_id|>",
    ),
    "Gemma": Family(
        "{{ bos_token }}{% for m in messages %}{% if m.role == 'system' %}"
        "{{ raise_exception('System role not supported') }}{% endif %}<start_of_turn>"
        "{{ 'model' if m.role == 'assistant' else m.role }}\n{{ m.content | trim }}<end_of_turn>\n"
        "{% endfor %}{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}",
        ("<start_of_turn>", "<end_of_turn>"),
        "<end_of_turn>",
    ),
    "Phi 3": Family(
        "{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}<|end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|assistant|>\n{% else %}{{ eos_token }}{% endif %}",
        ("<|user|>", "<|assistant|>", "<|system|>", "<|end|>"),
        "<|end|>",
        strips=True,
    ),
    "Phi 4 mini (the end of the text at the end of the turn)": Family(
        "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|end|>{% endfor %}"
        "{% if add_generation_prompt %}<|assistant|>{% else %}{{ eos_token }}{% endif %}",
        ("<|user|>", "<|assistant|>", "<|system|>", "<|end|>"),
        "<|end|>",
    ),
    "Mistral (system text in the user's turn)": Family(
        "{{ bos_token }}{% if messages[0].role == 'system' %}{% set s = messages[0].content ~ '\n\n' %}"
        "{% set ms = messages[1:] %}{% else %}{% set s = '' %}{% set ms = messages %}{% endif %}"
        "{% for m in ms %}{% if m.role == 'user' %}[INST] {{ s if loop.last or loop.first else '' }}"
        "{{ m.content }} [/INST]{% elif m.role == 'assistant' %} {{ m.content | trim }}{{ eos_token }}"
        "{% else %}{{ raise_exception('only user and assistant') }}{% endif %}{% endfor %}",
        ("[INST]", "[/INST]"),
        "</s>",
    ),
    "Llama 2 (white space before the end)": Family(
        "{% for m in messages %}{% if m.role == 'user' %}{{ bos_token }}[INST] {{ m.content | trim }} "
        "[/INST]{% elif m.role == 'assistant' %} {{ m.content | trim }} {{ eos_token }}{% endif %}"
        "{% endfor %}",
        (),
        "</s>",
    ),
    "Zephyr": Family(
        "{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}{{ eos_token }}\n{% endfor %}"
        "{% if add_generation_prompt %}<|assistant|>\n{% endif %}",
        (),
        "</s>",
    ),
    "thinking dropped from history, thinking prompt": Family(
        "{% set ns = namespace(last=0) %}{% for m in messages %}{% if m.role == 'user' %}"
        "{% set ns.last = loop.index0 %}{% endif %}{% endfor %}{% for m in messages %}"
        "<|im_start|>{{ m.role }}\n{% if m.role == 'assistant' and loop.index0 > ns.last %}<think>\n"
        "{{ m.reasoning_content or '' }}\n</think>\n{% endif %}{{ m.content }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n<think>\n{% endif %}",
        (*IM, "<think>", "</think>"),
        "<|im_end|>",
    ),
    "channels, another end for the last turn": Family(
        "{% for m in messages %}{% if m.role == 'assistant' %}{% if m.thinking and loop.last %}"
        "<|start|>assistant<|channel|>analysis<|message|>{{ m.thinking }}<|end|>{% endif %}<|start|>"
        "assistant<|channel|>final<|message|>{{ m.content }}"
        "{{ '<|return|>' if loop.last else '<|end|>' }}"
        "{% else %}<|start|>{{ m.role }}<|message|>{{ m.content }}<|end|>{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}<|start|>assistant{% endif %}",
        ("<|start|>", "<|channel|>", "<|message|>", "<|end|>", "<|return|>"),
        "<|return|>",
    ),
    "history rendered otherwise once a reply follows": Family(
        "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}{% if m.role == 'user' and loop.revindex "
        "== 2 and messages[-1].role == 'assistant' %}(asked){% endif %}{{ eos_token }}{% endfor %}"
        "{% if add_generation_prompt %}<|assistant|>{% endif %}",
        ("<|user|>", "<|assistant|>"),
        "</s>",
    ),
    "the next turn's opening is always written (Command R7B)": Family(
        "{{ bos_token }}{% for m in messages %}<|START|>{% if m.role == 'assistant' %}<|BOT|><|SAY|>"
        "{{ m.content }}<|/SAY|>{% else %}<|{{ m.role | upper }}|>{{ m.content }}{% endif %}<|STOP|>"
        "{% endfor %}<|START|><|BOT|>{% if add_generation_prompt %}<|SAY|>{% endif %}",
        ("<|START|>", "<|STOP|>", "<|BOT|>", "<|USER|>", "<|SYSTEM|>", "<|SAY|>", "<|/SAY|>"),
        "<|/SAY|><|STOP|>",
    ),
    "named channels, which end on one token (Kimi K3)": Family(
        "{% for m in messages %}<|open|>message {{ m.role }}<|sep|>{% if m.role == 'assistant' %}"
        "<|open|>think<|sep|>{{ m.reasoning_content or '' }}<|close|>think<|sep|><|open|>say<|sep|>"
        "{{ m.content }}<|close|>say<|sep|>{% else %}{{ m.content }}{% endif %}<|end_of_msg|>"
        "{% endfor %}{% if add_generation_prompt %}<|open|>message assistant<|sep|><|open|>think<|sep|>"
        "{% endif %}",
        ("<|open|>", "<|sep|>", "<|close|>", "<|end_of_msg|>"),
        "<|close|>say<|sep|><|end_of_msg|>",
    ),
    "system text in the last question only (Mistral 7B v0.3)": Family(
        "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}[INST] {% if loop.last and "
        "messages[0].role == 'system' %}{{ messages[0].content }}\n\n{% endif %}{{ m.content }}[/INST]"
        "{% elif m.role == 'assistant' %} {{ m.content }}{{ eos_token }}{% elif m.role != 'system' %}"
        "{{ raise_exception('only user and assistant') }}{% endif %}{% endfor %}",
        ("[INST]", "[/INST]"),
        "</s>",
    ),
    "asked to think, answered without (GLM 4.7)": Family(
        "{% for m in messages %}<|{{ m.role }}|>{% if m.role == 'assistant' %}{% if "
        "m.reasoning_content and loop.last %}<think>{{ m.reasoning_content }}{% endif %}</think>"
        "{{ m.content }}<|endoftext|>{% else %}{{ m.content }}{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}<|assistant|><think>{% endif %}",
        ("<|user|>", "<|assistant|>", "<|system|>", "<think>", "</think>", "<|endoftext|>"),
        "<|endoftext|>",
    ),
}


def trl_templates() -> dict[str, str]:
    """Every template that the installed TRL ships, by name; none without TRL."""
    try:
        import trl
    except ImportError:
        return {}
    folder = Path(trl.__file__).parent / "chat_templates"
    return {file.stem: file.read_text() for file in sorted(folder.glob("*.jinja"))}


def with_markers(tokenizer: Any, family: Family) -> Any:
    """The tokenizer with the family's template and markers."""
    from transformers import AddedToken

    wide = {"lstrip": family.strips, "rstrip": family.strips}
    tokenizer.add_tokens(
        [AddedToken(text, special=True, normalized=False, **wide) for text in family.tokens],
        special_tokens=True,
    )
    tokenizer.eos_token = family.eos
    tokenizer.chat_template = family.template
    return tokenizer
