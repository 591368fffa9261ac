# Everything that is done to this repository by command. `make demo` and `make test` need Rust, Python 3, git and make;
# a C compiler is installed when it is missing and we are root. CARGO_TARGET_DIR is respected.

export PATH := $(PATH):$(HOME)/.cargo/bin

.PHONY: demo test kills check docs image bench deps clean

demo: deps  ## train the example through the pipe, against a throw-away Bitbucket
	scripts/demo.sh

test: check  ## everything that CI checks
	cargo test --workspace --locked

kills: deps  ## the long campaigns of kills, of the pipe and of the machine's watch: TRAINSPOT_KILLS of each
	TRAINSPOT_KILLS=$${TRAINSPOT_KILLS:-20} cargo test --locked --test integration -- --nocapture --include-ignored killed_at

check: deps docs  ## format, lints, licences, documentation
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked
	@# Without the advisories, which need the network: `cargo deny check advisories`.
	@if cargo deny --version >/dev/null 2>&1; then set -x; cargo deny --locked check bans licenses sources; \
	else echo "cargo-deny is not installed: licences and sources of dependencies are not checked"; fi

docs: deps  ## every Pipelines example against Bitbucket's schema
	$$(scripts/venv.sh docs scripts/requirements.txt)/python scripts/check_docs.py

image: deps  ## the pipe's image, from a release build on this machine
	scripts/image.sh

bench: deps  ## time and memory beside git, tar and cp; takes about 4 minutes once built
	cargo build --release --workspace --bins --locked
	python3 scripts/bench.py $${CARGO_TARGET_DIR:-target}/$$(rustc -vV | sed -n 's/^host: //p')/release

deps:
	@scripts/deps.sh

clean:
	rm -rf build
	cargo clean
