"""Train a byte-level BPE tokenizer on the text of some data files and save it as a model folder does.

    python recipes/train_tokenizer.py OUT --vocab-size 16384 DATA.jsonl.gz ...

For runs from scratch (`model.config`), which need a tokenizer of their own. BOS is put in front by the
tokenizer, EOS is left to whoever ends a response, a chat template for `messages` is included.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from onestage.data.reading import read
from onestage.data.record import Record

BEGIN, END = "<|begin|>", "<|end|>"
CHAT = (
    "{{ bos_token }}{% for message in messages %}<|{{ message['role'] }}|>\n"
    "{{ message['content'] }}{{ eos_token }}\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)


def texts(files: list[str]) -> Iterator[str]:
    """Every prompt and completion of the records in some files."""
    for file in files:
        for record in read(file):
            if isinstance(record, Record):
                for part in (record.prompt, *record.completions):
                    turns = [part] if isinstance(part, str) else [t["content"] for t in part]
                    yield from (str(turn) for turn in turns)


def train(files: list[str], vocab_size: int) -> PreTrainedTokenizerFast:
    """The tokenizer."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[BEGIN, END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts(files), trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BEGIN} $A", special_tokens=[(BEGIN, 0)]
    )
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=BEGIN, eos_token=END, pad_token=END
    )
    wrapped.chat_template = CHAT
    return wrapped


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("files", nargs="+")
    parser.add_argument("--vocab-size", type=int, default=16384)
    options = parser.parse_args()
    tokenizer = train(options.files, options.vocab_size)
    tokenizer.save_pretrained(options.out)
    print(f"{options.out}: {len(tokenizer)} tokens")


if __name__ == "__main__":
    main()
