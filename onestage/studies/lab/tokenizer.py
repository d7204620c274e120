"""A real tokenizer for a small world: one token a word, trained on the world's own text.

Whole words let a model of two layers learn facts in a minute. It is an ordinary fast tokenizer in
all other respects: it adds its own BOS, gives character offsets, is saved as a folder, and what it
decodes is the text that was encoded (for text in the world's way of spacing).
"""

from __future__ import annotations

from collections.abc import Iterator

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from onestage.data.kinds import ANSWERED
from onestage.studies.lab.feedback import WRITTEN
from onestage.studies.lab.source import Source

PAD, BOS, EOS, UNKNOWN = SPECIAL = ("<pad>", "<s>", "</s>", "<unk>")
JOINED = (
    *((f" {mark}", mark) for mark in (".", ",", "?", ":")),
    ('{" ', '{"'),
    (' ":', '":'),
    ('": " ', '": "'),
    (' "}', '"}'),
    ("[ ", "["),
    (" ]", "]"),
)
"""Where the world's text has no space between two words of the tokenizer: (with, without)."""


def train_tokenizer(world: Source) -> PreTrainedTokenizerFast:
    """The tokenizer of all words in the world's pretraining text and rows."""
    inner = Tokenizer(models.WordLevel(unk_token=UNKNOWN))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    inner.decoder = decoders.Sequence(
        [
            decoders.WordPiece(
                prefix="##", cleanup=False
            ),  # a space before each word but the first
            decoders.Fuse(),
            *(decoders.Replace(apart, joined) for apart, joined in JOINED),
        ]
    )
    trainer = trainers.WordLevelTrainer(special_tokens=list(SPECIAL), show_progress=False)
    inner.train_from_iterator(_texts(world), trainer)
    return finished(inner)


def finished(inner: Tokenizer) -> PreTrainedTokenizerFast:
    """A tokenizer of words with the special tokens, which puts its own BOS in front."""
    inner.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", special_tokens=[(BOS, inner.token_to_id(BOS))]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=inner,
        pad_token=PAD,
        bos_token=BOS,
        eos_token=EOS,
        unk_token=UNKNOWN,
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )


def _texts(world: Source) -> Iterator[str]:
    yield from world.pretraining_text("train")
    for kind in (kind for kind in ANSWERED if kind in WRITTEN):
        for row in world.rows(kind, "train"):
            for value in row.values():
                if isinstance(value, str):
                    yield value
                elif isinstance(value, list):
                    yield from (item for item in value if isinstance(item, str))
