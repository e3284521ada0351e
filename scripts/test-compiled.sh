#!/usr/bin/env bash
# Runs the tests of what is compiled once more, on the compiled files and on uvloop: as dockscale runs, where the other
# tests are on the source and on asyncio's own loop.
set -eu
cd "$(dirname "$0")/.."

scripts/compile.sh
# Not 'python -m pytest', and 'append': the source in this folder must not come first.
DOCKSCALE_COMPILED=1 DOCKSCALE_TEST_LOOP=uvloop PYTHONPATH=build/compiled .venv/bin/pytest --import-mode=append -m "not engine" \
    tests/test_compiled.py tests/test_proxy.py tests/test_framing.py tests/test_framing_fuzz.py \
    tests/test_slow_and_broken.py tests/test_local.py tests/test_connections.py tests/test_corners.py tests/test_limits.py tests/test_tls.py tests/test_registry.py \
    tests/test_wire.py tests/test_scaler.py tests/test_standby.py tests/test_rollout.py tests/test_measures.py tests/test_budget.py tests/test_ahead.py tests/core \
    tests/hub/test_wire.py tests/hub/test_hub.py tests/hub/test_hostile.py tests/hub/test_parts.py tests/hub/test_calls.py tests/hub/test_call_stories.py tests/hub/test_instances.py "$@"
