"""Model Surgery, arXiv:2407.08770: a behaviour made rarer by moving a few rows, without training.

The paper's claim: a linear probe finds the direction of a behaviour; added to the gate-projection rows that are most
opposed to it (4.65 % of LLaMA2-7B's), it takes away 90 % of the toxicity on RealToxicityPrompts, and keeps common sense
and mathematics.

Reproduced: the probe, the choice over all layers, the edit and its undoing, the three choices of rows side by side, on
a model of Qwen3's architecture that writes in two styles, half and half. Measured are the share of words of the
unwanted style in what the edited model, loaded from disk, writes, and the nats per token of clean text.
Not reproduced: the models and benchmarks of the paper.

Differences: the direction has length 1 (the release adds the probe's row as it was learnt); the probe starts from 0.
The claims are about moves of 4. At 8 the edited model wrote hardly any sentence of either style in a first trial (0.11
of its words, of 0.60 before), so how rare one of them is says nothing there; "styled" tells it for every run.
Seeds differ: with three of them every claim was inconclusive, so eight were run, those three among them.
"""

from __future__ import annotations

from dataclasses import replace

from ludus.evals.surgery import Surgery
from ludus.train.claims import Claim

recipe = Surgery(rows="opposed")

arms = {
    "opposed rows": recipe,
    "random rows": replace(recipe, rows="random", draws=4),
    "aligned rows": replace(recipe, rows="aligned"),
}
claims = (
    Claim("at 4, opposed rows make the style rarer than random ones do",
          "random rows", "opposed rows", margin=0.05, measure="bad share/alpha 4"),
    Claim("at 4 the style is rarer than before",
          "opposed rows", None, margin=0.1, measure="bad share/alpha 0", against="bad share/alpha 4"),
    Claim("aligned rows do not make it rarer",
          "aligned rows", "opposed rows", margin=0.05, measure="bad share/alpha 4"),
    Claim("at 4, clean text costs at most 0.3 nats more",
          "opposed rows", None, margin=-0.3, measure="clean nll/alpha 0", against="clean nll/alpha 4"),
)  # fmt: skip
