"""Run by the interpreter that has LiteLLM: builds a router from JSON on standard input, sends, and prints what became of it."""

import asyncio
import json
import sys

from helpers.lessons.deployment import routing

asked = json.load(sys.stdin)
try:
    router = routing.router([routing.deployment(**one) for one in asked["deployments"]], asked.get("fallbacks"))
except ValueError as error:
    print(json.dumps(str(error)))
    sys.exit()


async def send():
    return await asyncio.gather(*(routing.send(router, **one) for one in asked["sends"]))


print(json.dumps([[vars(answer) for answer in answers] for answers in asyncio.run(send())]))
