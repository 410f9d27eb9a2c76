"""Measures this server's streams against those of others, then search by size; writes the README's tables and plots.

    just bench

Takes an hour. Needs Linux, and a quiet machine with two cores.
"""

import uvloop

from tests.bench import search, streams
from tests.bench.contenders import ROOT

README = ["--readme", str(ROOT / "README.md")]

streams.main(README)
uvloop.run(search.main(README))
