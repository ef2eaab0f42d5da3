# make run    set up .venv, then recognise micro-expressions on camera 0 (or the sample clip, without one)
# make test   set up .venv with what the checks need, then ruff, pyright and pytest
#             (the demo's page is tested where there is a Chromium: apt-get install chromium)
# make test-trt  build TensorRT-RTX engines, without a GPU, in a .venv-trt of its own (300 MB more); with one, run them
# make test-browser  the demo's page alone, in Chromium; screenshots are left in build/demo-screenshots
# make clean  remove .venv and what the checks left
#
# Variables: PYTHON=python3.12   the Python to make .venv with (3.10 to 3.12; after make clean)
#            CAMERA=1            another camera
#            ARGS="--save a.mp4" more flags for the recogniser (see README.md)

VENV := .venv
CAMERA := 0
ARGS :=
BIN := $(VENV)/bin
# A window where there is a display to show it on.
SHOW := $(if $(DISPLAY)$(WAYLAND_DISPLAY)$(filter Darwin,$(shell uname)),--show)

export PYTHON VENV

.PHONY: run test test-browser test-trt lint format clean
.DELETE_ON_ERROR:

run: $(VENV)/.run
	@message=$$($(BIN)/python -m streamer --list-cameras 2>&1 >/dev/null); \
	case $$? in \
	0) exec $(BIN)/python -m streamer --camera $(CAMERA) $(SHOW) $(ARGS) ;; \
	3) echo "make run: no camera found, so this is the sample clip" >&2; \
	   exec $(BIN)/python -m streamer --source sample $(SHOW) $(ARGS) ;; \
	*) echo "$$message" >&2; exit 1 ;; \
	esac

test: lint
	$(BIN)/python -m pytest

test-browser: $(VENV)/.test
	$(BIN)/python -m pytest tests/test_demo_browser.py

test-trt: $(VENV)-trt/.test-trt
	$(VENV)-trt/bin/python -m pytest tests/test_tensorrt.py tests/test_gpu.py

lint: $(VENV)/.test
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/pyright --pythonpath $(BIN)/python

format: $(VENV)/.test
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

# The stamps say what .venv holds; they are older than pyproject.toml when it has to be updated.
$(VENV)/.test: pyproject.toml constraints.txt scripts/setup.sh
	@scripts/setup.sh test
	@touch $(VENV)/.run $@

$(VENV)-trt/.test-trt: pyproject.toml constraints.txt scripts/setup.sh
	@VENV=$(VENV)-trt scripts/setup.sh test-trt
	@touch $@

$(VENV)/.run: pyproject.toml scripts/setup.sh
	@scripts/setup.sh run
	@touch $@

clean:
	rm -rf $(VENV) $(VENV)-trt .pytest_cache .ruff_cache .hypothesis build *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
