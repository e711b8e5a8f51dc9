"""One endpoint in, figures out: what TTFT, ITL, TPOT and throughput are, and the client that measures them.

Knows no framework. A stamp goes from `connection` to `stream`, `timing`, `measure` and `checks`; `truth_server` is
what the client itself is held against. `python -m helpers.bench` is the command.
"""
