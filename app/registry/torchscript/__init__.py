"""Writes and loads TorchScript programs, so that a successor has one place to go (docs/adr/0012).

No other room names `torch._C` or calls `torch.jit`; models only mark the branches that a program leaves out.

`scripting` turns a model into an archive, `loader` an archive into a `ServedProgram`.
"""
