"""Small reference networks, written to be read.

- `resnet`: residual networks for small pictures; an untrained block is the identity.
- `lstm`: a long short-term memory with its gates written out.
- `attention`: soft, content-based attention over a memory, and between two sequences.

They are what the demo, the tests, the notebooks and the benchmarks train. Each module
names the papers that it follows.
"""
