"""Characters to tokens: which tokens of a text are a response's.

Legend: an edge is a place between two characters, where a span begins or ends.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from onestage.data.template import Rendered, dialect
from onestage.data.trees import Ids

Spans = list[tuple[int, int]]


def token_spans(tokenizer: Any, rendered: Rendered, encoding: Any, ids: Ids) -> tuple[Ids, Spans]:
    """The ids of a text and the tokens [start, end) of each of its spans.

    encoding: of the text, with offsets; ids: its ids, perhaps without the last one. Where a token holds
    characters of both sides of an edge, or the prompt has other tokens than when a model is asked with
    it, the pieces are tokenised apart, which gives other ids.
    """
    spans = _whole_tokens(tokenizer, rendered, encoding, ids)
    if spans is not None and not _split_by_what_follows(tokenizer, rendered, ids, spans):
        return ids, spans
    apart = _apart(tokenizer, rendered, ids)
    if apart is not None:
        return apart
    edges = [
        min(first_token(encoding, encoding.offsets, char, len(rendered.text)), len(ids))
        for span in rendered.spans
        for char in span
    ]
    return ids, list(zip(edges[::2], edges[1::2], strict=True))


def _whole_tokens(tokenizer: Any, rendered: Rendered, encoding: Any, ids: Ids) -> Spans | None:
    """The tokens of each span; None where a token holds characters of both sides of an edge."""
    offsets, markers = encoding.offsets, dialect(tokenizer).tokens
    edges: list[int] = []
    for char in (char for span in rendered.spans for char in span):
        token = first_token(encoding, offsets, char, len(rendered.text))
        if token < len(ids) and offsets[token][0] < char < offsets[token][1]:
            # A marker may take the white space beside it in; it stays where it stands.
            if not markers.fullmatch(tokenizer.convert_ids_to_tokens(int(ids[token]))):
                return None
            token += 1
        elif _swallowed(rendered.text, encoding, char, token):
            return None
        edges.append(min(token, len(ids)))
    return list(zip(edges[::2], edges[1::2], strict=True))


def _split_by_what_follows(tokenizer: Any, rendered: Rendered, ids: Ids, spans: Spans) -> bool:
    """Whether what stands in front of a reply has other tokens with the reply behind it than alone.

    Patterns that part a text first may look ahead behind white space, and there alone: two line feeds
    are one token at the end of a text and two in front of a word. (A merge that crosses no edge is the
    same on its side of it.)
    """
    text, last = rendered.text, -1
    for (start, end), (token, _) in zip(rendered.spans, spans, strict=True):
        if start != last and start > 1 and text[start - 2 : start].isspace():
            asked, special = text[:start], rendered.special
            alone = tokenizer(asked, add_special_tokens=special, verbose=False).input_ids
            if rendered.special and alone and alone[-1] == tokenizer.eos_token_id:
                alone = alone[:-1]
            if alone != ids[:token].tolist():
                return True
        last = end
    return False


def _swallowed(text: str, encoding: Any, char: int, token: int) -> bool:
    """Whether white space before an edge is part of the token behind it, whose offsets leave it out."""
    if not 0 < char < len(text) or not text[char - 1].isspace():
        return False
    return token > 0 and encoding.char_to_token(char - 1) is None


def _apart(tokenizer: Any, rendered: Rendered, ids: Ids) -> tuple[Ids, Spans] | None:
    """The pieces between the edges of spans tokenised apart and joined; None for a tokenizer that takes
    a piece for the beginning of a text (and puts a space in front of it)."""
    edges = sorted({0, *(c for span in rendered.spans for c in span), len(rendered.text)})
    pieces = [rendered.text[a:b] for a, b in pairwise(edges)]
    parts = tokenizer(pieces, add_special_tokens=False, verbose=False).input_ids
    if rendered.special:
        parts[0] = tokenizer(pieces[0], verbose=False).input_ids
        if len(parts) > 1 and parts[0] and parts[0][-1] == tokenizer.eos_token_id:
            parts[0] = parts[0][:-1]
    joined = np.asarray([token for part in parts for token in part], np.int32)
    same = tokenizer.decode(joined, clean_up_tokenization_spaces=False) == tokenizer.decode(
        ids, clean_up_tokenization_spaces=False
    )
    if not same:
        return None
    ends = np.cumsum([0, *map(len, parts)])
    at = {edge: int(end) for edge, end in zip(edges, ends, strict=True)}
    return joined, [(at[start], at[end]) for start, end in rendered.spans]


def first_token(encoding: Any, offsets: Sequence[tuple[int, int]], char: int, stop: int) -> int:
    """Index of the first token that reaches beyond `char` (the length, if none does).

    The text is scanned for a character that has a token; tokens just before it may be white space
    whose offsets the tokenizer trimmed to nothing.
    """
    token = None
    for position in range(char, stop):
        token = encoding.char_to_token(position)
        if token is not None:
            break
    if token is None:
        token = len(offsets)
        while token and offsets[token - 1] == (0, 0):
            token -= 1
    while token and offsets[token - 1][1] > char:
        token -= 1
    return int(token)
