"""MIR-Bench, arXiv:2502.09933: induction from many shots. Given k calls of an unknown function, predict one more.

functions   small primitives and their compositions
problems    a function with its shots and tests; search over all compositions
trivial     rules that understand nothing, reported beside every score
pool        which functions are kept, told stage by stage
codes       functions that a tiny model can learn to induce
prompts     the benchmark's format, wrong shots, copies of one shot
scores      strict (published) and lenient
induction   a model's accuracy against the number of shots, as a study
published   the real data set, from a file
world       the same as an environment, to train on
"""
