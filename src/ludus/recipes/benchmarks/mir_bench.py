"""MIR-Bench, arXiv:2502.09933: can a model induce a function from 4 to 2048 examples in its context?

The paper's claim: accuracy rises with the number of shots to a peak between 16 and 512 and falls beyond it; forced
chains of thought often hurt; wrong shots are resisted fairly well. Core, mean over shots: o1 79.65, GPT-4o 53.03.

Reproduced: prompts, scores, filters and ablations. `recipe` measures a tiny transformer that was trained in context on
codes (a letter and a digit, each exchanged by a table of its own) and meets held-out ones, in which the letter stays
and the digit is exchanged. Where letters are exchanged too (`both`), it looks up digits alone and its answers are
hardly ever right, at any number of shots: that was tried first, and the easier codes were chosen for it. `pool` puts it
before the generated pool, whose functions it never learnt, to show the funnel, program search and the trivial rules.
Not reproduced: the functions of HumanEval+, MBPP+ and APPS with their 30 tags and rated difficulty. The benefit filter
is a search over programs, where the paper's is a regression whose coefficients are not released.

    ludus run mir-bench --variant pool --model DIR          any transformers model, on the generated pool
    ludus run mir-bench --variant published --set file=core.parquet --model DIR     on the data set itself

Strict scores, as the published ones are: the released script lacks an import, so its lenient rule never applies. Both
are told. A prompt that has no room in the context counts as wrong.
"""

from __future__ import annotations

from dataclasses import replace

from ludus.evals.mir_bench.codes import Codes
from ludus.evals.mir_bench.induction import Induction
from ludus.evals.mir_bench.pool import Generated
from ludus.evals.mir_bench.prompts import COPIES, FREE, LEVELS
from ludus.evals.mir_bench.published import Published
from ludus.train.claims import Claim

recipe = Induction()
both = replace(recipe, problems=Codes(letters=True))
pool = replace(
    recipe, problems=Generated(size=4), shots=(4, 8, 16, 32), wrong=(), copies=(), max_tokens=64
)

# The paper's setting, on the generated pool.
paper = Induction(
    model="Qwen/Qwen3-8B",
    problems=Generated(size=300, depth=4),
    shots=LEVELS,
    wrong=(1 / 64, 1 / 32, 1 / 16, 1 / 8, 1 / 4, 1 / 2, 3 / 4),
    wrong_shots=256,
    copies=COPIES[1:],
    ask=FREE,
    max_tokens=4096,
)
published = Published()

arms = {"codes": recipe, "generated pool": pool}
WHOLE, HALF = "accuracy/32 shots", "accuracy/32 shots, 50% wrong"
claims = (
    Claim("32 shots beat 4", "codes", None, 0.1, WHOLE, "accuracy/4 shots"),
    Claim("32 shots beat every trivial rule", "codes", None, 0.0, WHOLE, "trivial/32 shots"),
    Claim("half of the shots wrong loses", "codes", None, 0.05, WHOLE, HALF),
    Claim(
        "1008 copies of one shot are not better than none",
        *("codes", None, -0.02, "accuracy/16 shots", "accuracy/16 shots and 1008 copies"),
    ),
    Claim(
        "program search gains from shots",
        *("generated pool", None, 0.1, "search/32 shots", "search/4 shots"),
    ),
)
