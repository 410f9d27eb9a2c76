# Commands for those who run and those who change Stagecast; `just` alone lists them.

set positional-arguments

_list:
    @just --list --unsorted

# Start the server on http://localhost:8000, everything it needs included
[parallel]
serve *arguments: page _installed
    uv run --no-dev --group model --locked stagecast serve "$@"

# Start the server on 8000 anew whenever the code changes, and the page on http://localhost:3000
dev *arguments: _node_modules
    #!/usr/bin/env sh
    (cd ui && exec node_modules/.bin/vite) & page=$!
    trap "kill $page" EXIT
    uv run --locked stagecast serve --reload "$@"

# Set up and run all tests
test *arguments: page
    if command -v npm >/dev/null; then just _node_modules && cd ui && npm test; fi
    uv run --locked pytest "$@"

# Repeat the tests of faults as often as the README's figures say, which takes half an hour, and print the figures
soak *arguments:
    uv run --locked pytest --soak -s tests/faults tests/api/test_schema.py "$@"

# Build the page into api/page, where Node is there and something has changed
page:
    #!/usr/bin/env sh
    built=api/page/index.html
    if [ -f $built ] && [ -z "$(find ui/index.html ui/vite.config.ts ui/package-lock.json ui/src -newer $built)" ]; then exit; fi
    if ! command -v npm >/dev/null; then echo "There is no Node here: the server goes without its page."; exit; fi
    just _node_modules && (cd ui && npm run --silent build -- --logLevel warn) || echo "The page could not be built (Node 20.19 or newer is needed)."

_installed:
    [ -d .venv ] || uv sync --no-dev --group model --locked

_node_modules:
    [ ui/node_modules/.package-lock.json -nt ui/package-lock.json ] || (cd ui && npm ci --no-audit --no-fund --silent)

# Make the page's types from the server's description of its routes and events
types: _node_modules
    uv run --locked stagecast schema | (cd ui && node scripts/types.mjs) > ui/src/wire.new && mv ui/src/wire.new ui/src/wire.ts

# Mend what the linters can mend
lint: _node_modules
    cd ui && npx biome check --write
    uv run --locked ruff check --fix
    uv run --locked ruff format

# Run every check that CI runs, tests excepted
check: _node_modules
    cd ui && npm run --silent check
    uv run --locked stagecast schema | (cd ui && node scripts/types.mjs) | diff - ui/src/wire.ts
    uv run --locked ruff check
    uv run --locked ruff format --check
    uv run --locked mypy
    uv run --locked lint-imports

# Bring the database to the newest tables
migrate:
    uv run --locked stagecast migrate

# Write a migration from what changed in api/storage/tables.py
revision message: migrate
    uv run --locked alembic revision --autogenerate -m "{{ message }}"

# Measure streams against other servers and search by size, for the README; or one: `streams`, `search`, `ingestion FILE`, `tokens`, `page`
bench name="" *arguments:
    uv run --group bench --locked python -m tests.bench{{ if name == "" { "" } else { "." + name } }} {{ arguments }}
