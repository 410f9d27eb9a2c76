# Commands for those who run and those who change Stagecast; `just` alone lists them.

set positional-arguments

_list:
    @just --list --unsorted

# Start the server on http://localhost:8000, everything it needs included
serve *arguments:
    uv run --no-dev --group model --locked stagecast serve "$@"

# Start the server anew whenever the code changes
dev *arguments:
    uv run --locked stagecast serve --reload "$@"

# Set up and run all tests
test *arguments:
    uv run --locked pytest "$@"

# Repeat the tests of faults as often as the README's figures say, which takes half an hour, and print the figures
soak *arguments:
    uv run --locked pytest --soak -s tests/faults tests/api/test_schema.py "$@"

# Mend what the linters can mend
lint:
    uv run --locked ruff check --fix
    uv run --locked ruff format

# Run every check that CI runs, tests excepted
check:
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

# Measure: `questions [FILE]` asks a running server and counts right answers, `tokens` times an LLM's tokens
bench name="questions" *arguments:
    uv run --locked python -m tests.bench.{{ name }} {{ arguments }}
