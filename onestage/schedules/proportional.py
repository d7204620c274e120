"""Proportional: every term weighs as much as its share of the records, over the steps of a run.

This is what UFT does (Wang et al. 2024, arXiv 2410.21438): sets are mixed by their sizes. With one
objective for everything there is one term, of weight 1. Here the weights are those shares.
"""

from __future__ import annotations

from dataclasses import dataclass

from onestage.schedules import Schedule


@dataclass
class Proportional(Schedule):
    # One batch is drawn over all streams, in which a term has its share of the records on average. The
    # loop weighs its mean loss by what it has of each batch, so that the loss is the mean over all
    # records; any other weight would be another loss than UFT's.
    batch = "mixed"

    def weigh(self, step: int) -> dict[str, float]:
        return self.share
