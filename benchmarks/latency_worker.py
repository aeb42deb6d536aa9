"""One process of bench_latency: the shop behind a threaded server on the loopback, under one profiler."""

import json
import logging
import os
import sys
import threading
from typing import Any

from .profilers import PROFILERS, PyprofFlask, obey
from .workloads import ShopApplication


def main() -> None:
    request = json.loads(sys.argv[1])
    os.sched_setaffinity(0, {request["cpu"]})  # before there are threads, which inherit it
    shop = ShopApplication()
    from shop.__main__ import make_shop_server

    logging.getLogger("werkzeug").setLevel(logging.WARNING)
    server = make_shop_server(0, shop.app)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    profiler = PROFILERS[request["profiler"]]()
    if isinstance(profiler, PyprofFlask):
        profiler.app = shop.app

    def do(command: str) -> dict[str, Any]:
        if command == "renew":
            shop.renew()
        return {"port": server.server_port}

    obey(profiler, request["url"], do)
    server.shutdown()
    thread.join()
    shop.close()


if __name__ == "__main__":
    main()
