# `make demo` trains a small model on this machine; `make test` runs the tests. Both set up .venv first.
# Another build of torch: make setup TORCH="torch==2.13.0 --index-url <the index of your CUDA version>"

PYTHON ?= python3
TORCH ?= torch==2.13.0
VENV := .venv
BIN := $(VENV)/bin
RUN := runs/demo
TESTS := OMP_NUM_THREADS=1 $(BIN)/pytest --numprocesses logical --maxprocesses 8 --dist loadfile --no-loadscope-reorder --costs 15

.DEFAULT_GOAL := help

help: ## Show the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "%-18s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "python 3.11 or newer is needed; name one with make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt $(TORCH)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[all,dev]'
	touch $@

setup: $(VENV)/.installed ## Create .venv with pinned versions

demo: setup ## Check data, preview, train, and ask base and tuned model
	$(BIN)/trainer data check data/glossary_train.jsonl --validation data/glossary_validation.jsonl
	$(BIN)/train --config configs/tiny.yaml --preview 3
	if [ -e $(RUN) ]; then $(BIN)/trainer delete $(RUN) --yes; fi
	$(BIN)/train --config configs/tiny.yaml run.name=$(notdir $(RUN))
	$(BIN)/trainer show $(RUN)
	$(BIN)/trainer chat $(RUN) --compare --questions data/questions.txt
	@echo "did it get better? open $(RUN)/report/report.html in a browser"

demo-real: setup ## The same with a real model of 135 million parameters: minutes, after it was fetched
	$(BIN)/python -m demo.real

demo-azureml: setup ## A run's life on Azure ML, on a twin of it on this machine; needs npm, some minutes
	$(BIN)/python -m tests.integration.azure_twin.demo

demo-openai: setup ## The journey on Azure OpenAI without an account: against a service on this machine
	$(BIN)/python -m tests.openai_service.demo

lint: setup ## Formatting, types, import directions
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test: lint ## The tests that CI runs first
	$(TESTS) -m 'not long and not slow and not real'

test-unit: setup ## Pure unit tests: nothing trains, compiles, sleeps or starts a process
	$(TESTS) tests/unit -m 'not apart and not long and not slow and not real'

test-slow: setup ## What CI runs after `make test`: installations, real models (TRAINER_REAL_MODELS)
	$(TESTS) -m '(slow or real) and not long'

test-full: lint ## All tests, also those that take minutes
	OMP_NUM_THREADS=1 $(BIN)/pytest

chaos: setup ## Kill runs at 330 points, ours and transformers' own, and let each go on
	$(BIN)/python -m tests.chaos --trainer ours --points 330 --output benchmarks/results/kills.json
	$(BIN)/python -m tests.chaos --trainer stock --points 100 --output benchmarks/results/kills-transformers.json

faults-openai: setup ## Every fault in every call to the fine-tuning service, ours and the plain SDK's; minutes
	$(BIN)/python -m tests.openai_service.matrix --output benchmarks/results/faults-openai.json

bench-checkpoints: setup ## How long training waits for a checkpoint
	$(BIN)/python benchmarks/checkpoints.py --output benchmarks/results/checkpoints.json

bench-growth: setup ## Measure listing runs and reading logs, at 1, 10 and 100 times as many
	$(BIN)/python -m benchmarks.growth

screenshots: setup ## Take the pictures of the studio's pages in docs/screenshots; needs Chromium
	$(BIN)/python -m tests.screenshots

bench-ui: setup ## Measure the studio in a real browser: first paint, a long chart, live updates
	$(BIN)/python -m benchmarks.ui

bench-api: setup ## Measure uploads to the API: memory of a 1 GB file, many clients at once; a minute
	$(BIN)/python -m benchmarks.api

bench-chat: setup ## Speed of chat through trainer api against trainer serve; two minutes
	$(BIN)/python -m benchmarks.chat

bench-packing: setup ## Measure cutting rows into packs, at 1, 10 and 100 times as many; a minute
	$(BIN)/python -m benchmarks.packing

bench-data: setup ## Measure checking (a million rows) and rendering; a few minutes
	$(BIN)/python benchmarks/data.py

bench-clean: setup ## Measure cleaning of a million rows; some minutes
	$(BIN)/python benchmarks/clean.py

bench-doctor: setup ## Wrong answers planted and found by trainer data doctor; some minutes
	$(BIN)/python benchmarks/doctor.py

bench-first-step: setup ## From the command to the first step, this trainer and TRL; a quarter of an hour
	$(BIN)/python benchmarks/first_step.py

bench: setup ## This trainer against TRL on a CPU, one thread, about an hour; TRAINER_SAMPLE_DATA adds real rows
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/engine.py

bench-gpu: setup ## Exactness, speed and memory on a GPU, against TRL, in nine minutes
	$(BIN)/python benchmarks/gpu_minutes.py --minutes 9

bench-serve: setup ## Speed, overload and memory of trainer serve; a few minutes
	$(BIN)/python benchmarks/serve.py

faults-azureml: setup ## Every fault in every operation of Azure ML, against its twin; needs npm, an hour
	$(BIN)/python -m tests.integration.azure_twin.matrix --output benchmarks/results/faults-azureml.json

docs: setup ## Write the generated pages again
	$(BIN)/trainer config schema > docs/config.schema.json
	$(BIN)/trainer config reference > docs/config.md
	$(BIN)/trainer data rules > docs/data_rules.md
	$(BIN)/trainer data clean --kinds > docs/clean.md
	$(BIN)/trainer schemas > docs/json.md
	$(BIN)/trainer schemas --format json > docs/json.schema.json

tiny-base: setup ## Train builtin:tiny again; for maintainers, a minute
	$(BIN)/python -m trainer.model.tiny_recipe

clean: ## Remove the demo's run and .venv
	if [ -e $(RUN) ]; then $(BIN)/trainer delete $(RUN) --yes; fi
	rm -rf $(VENV)

.PHONY: help setup demo demo-real demo-azureml demo-openai lint test test-unit test-slow test-full chaos faults-openai faults-azureml bench bench-api bench-chat bench-gpu bench-checkpoints bench-data bench-clean bench-doctor bench-growth bench-packing bench-first-step bench-serve bench-ui screenshots docs tiny-base clean
