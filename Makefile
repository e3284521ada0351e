# 'make' alone lists what there is. The longer steps are in scripts/.
.DEFAULT_GOAL := help
.PHONY: help venv dev run stop logs test test-fast check format docs pictures bench clean images
PY := .venv/bin/python

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# Stamps: pip runs again only when what it reads has changed.
.venv/.runtime: pyproject.toml constraints.txt
	@scripts/venv.sh && touch $@
.venv/.dev: pyproject.toml constraints.txt
	@scripts/venv.sh dev && touch $@ .venv/.runtime

venv: .venv/.runtime ## .venv with what dockscale needs
dev: .venv/.dev ## .venv with what its tests and checks need, too

run: venv ## build and start dockscale and the demo app, say what to try
	@scripts/run.sh
stop: ## stop dockscale and all it started; images and the tokens' secret stay
	@scripts/stop.sh
logs: ## follow dockscale's log
	@scripts/compose.sh logs -f dockscale

images: dev # what the tests start besides dockscale
	@scripts/engine.sh && scripts/test-images.sh && scripts/node.sh && scripts/chromium.sh && scripts/prometheus.sh
test: images ## all tests, those of the compiled path twice (starts an engine if none answers)
	@$(PY) -m pytest && scripts/test-compiled.sh
test-fast: dev ## the tests that need no engine
	@$(PY) -m pytest -m "not engine"
check: dev ## lint, format and types, without changing anything
	@.venv/bin/ruff check . && .venv/bin/ruff format --check . && .venv/bin/mypy
format: dev ## format the code, repair what can be repaired
	@.venv/bin/ruff check --fix . && .venv/bin/ruff format .
docs: venv ## write docs/labels.md and docs/settings.md from the code
	@.venv/bin/dockscale labels --markdown > docs/labels.md
	@.venv/bin/dockscale settings --markdown > docs/settings.md
pictures: dev ## take the pictures of the dashboard and the waiting page in docs/dashboard anew
	@scripts/chromium.sh && $(PY) -m tests.support.screenshots
bench: images ## measure how it scales, decisions and places, the proxy and the hub next to others
	@scripts/compile.sh && PYTHONPATH=build/compiled:. $(PY) -P -m bench.scaling && $(PY) -m bench.core && $(PY) -m bench.proxies && $(PY) -m bench.rpc
clean: ## remove .venv and what tools have left behind
	@rm -rf .venv build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
