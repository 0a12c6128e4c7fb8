"""The only room that names `torch.jit` and `torch._C`, so that a successor has one place to go (docs/adr/0012).

`scripting` turns a model into an archive, `loader` an archive into a `ServedProgram`.
"""
