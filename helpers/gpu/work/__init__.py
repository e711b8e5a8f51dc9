"""What a life does, a module for each: `helpers.gpu.tasks` names them, `helpers.gpu.cases` says which life does what.

Most send requests to a server that stands already; `offline` runs in an engine's own interpreter, `apart`, `routed` and
`copies` start several servers.
"""
