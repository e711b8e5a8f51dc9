"""One endpoint in, figures out: what TTFT, ITL, TPOT and throughput are, and the client that measures them.

Knows no framework, but the names in `server_metrics`. A stamp goes from `connection` to `stream`, which keeps it `packed`,
and on to `timing`, `measure` and `checks`; `truth_server` is what the client itself is held against. What is asked:
`workload`, or the `talks` of `synthetic`, `sharegpt` and `mooncake`, whose shared beginnings `prefixes` counts. What is seen
meanwhile: `beside`. What follows from figures: `find`, `stats`, `price`, `page`. `python -m helpers.bench` is the command.
"""
