"""The local engine: transformers models in this process, on one CPU, CUDA or MPS device.

attention.py  one attention function for sampling and learning, on tokens packed without padding
cache.py      the key-value rows that survive between the turns of a rollout
sampler.py    continuous batching: token ids in, token ids out
engine.py     many rollouts at once, each at its own turn
learner.py    packed, prefix-shared gradients with global denominators
check.py      do sampler and learner agree on log-probabilities?
"""
