# Everything that is done to this repository by command. `make demo` and `make test` need Rust, Python 3, git and make;
# a C compiler is installed when it is missing and we are root. CARGO_TARGET_DIR is respected.

export PATH := $(PATH):$(HOME)/.cargo/bin

.PHONY: help demo demo-aws demo-detached test quick bill kills detached endings interruptions faults dvc publications hostile hostile-servers fuzz mutants check style docs audit image bench deps clean

help:  ## what can be done by command
	@sed -n 's/^\([a-z-]*\):.*  ## /\1\t/p' $(MAKEFILE_LIST) | while IFS="$$(printf '\t')" read -r target what; do \
		printf '%-16s %s\n' "$$target" "$$what"; done

demo: deps  ## train the example through the pipe, against a throw-away Bitbucket
	scripts/demo.sh

demo-aws: deps  ## the same on spot machines of a throw-away EC2, which takes two of them back; needs root
	scripts/demo.sh aws

demo-detached: deps  ## a run whose step ends: its machine dies, and the pipeline comes back for the model
	scripts/demo.sh detached

test: check  ## everything that CI checks; TRAINSPOT_NO_SKIPS=1 makes a test fail that cannot run here
	scripts/test.sh

# Those of the integration tests that start no server but one in their own process.
QUICK = bitbucket:: config:: docs:: forms:: hostile_remote:: repo:: report:: words::

quick: style  ## format, lints, and the tests that need neither root nor another program
	cargo fmt --all --check
	$(CLIPPY) --workspace --all-targets --locked
	cargo test --workspace --lib --locked --quiet
	cargo test --locked --quiet --test integration -- $(QUICK)

# The long forms of what `make test` tries a few times; each prints what it counted. The last three need root, for the rig.
TRIALS = cargo test --locked --test integration -- --nocapture --include-ignored

kills: deps  ## SIGKILL at random instants, of the pipe and of a local machine's watch: TRAINSPOT_KILLS of each
	TRAINSPOT_KILLS=$${TRAINSPOT_KILLS:-20} $(TRIALS) kills::

detached: deps  ## SIGKILL at random instants, of the pipes and machines of detached runs: TRAINSPOT_DETACHED_KILLS runs
	TRAINSPOT_DETACHED_KILLS=$${TRAINSPOT_DETACHED_KILLS:-50} $(TRIALS) detached::losses::a_run_survives

endings: deps  ## SIGKILL at random instants of a run on EC2, and cuts of its network: TRAINSPOT_AWS_KILLS, TRAINSPOT_CUTS
	TRAINSPOT_AWS_KILLS=$${TRAINSPOT_AWS_KILLS:-30} TRAINSPOT_CUTS=$${TRAINSPOT_CUTS:-20} $(TRIALS) ec2::endings

interruptions: deps  ## spot interruptions at random times: TRAINSPOT_INTERRUPTIONS
	TRAINSPOT_INTERRUPTIONS=$${TRAINSPOT_INTERRUPTIONS:-50} $(TRIALS) ec2::interruptions

faults: deps  ## every kind of failure at every call that a run makes to AWS
	TRAINSPOT_ALL_FAULTS=1 $(TRIALS) ec2::faults

bill: deps  ## what a model costs on spot machines as they were in 2023, beside models of other tools; docs/bill.md explains the table
	cargo test --locked --lib -- --nocapture --include-ignored bill_replay::

dvc: deps  ## what we write beside what the real DVC writes, over DVC_TREES repositories, a fifth of them pushed; every fault at every call to a remote; forged answers of machines and of servers (TRAINSPOT_SEED)
	DVC_TREES=$${DVC_TREES:-500} TRAINSPOT_ALL_FAULTS=1 $(TRIALS) dvc::

publications: deps  ## pairs of publications at once, and git's attributes: TRAINSPOT_PUBLICATIONS, TRAINSPOT_ATTRIBUTES, TRAINSPOT_SEED
	TRAINSPOT_PUBLICATIONS=$${TRAINSPOT_PUBLICATIONS:-50} TRAINSPOT_ATTRIBUTES=$${TRAINSPOT_ATTRIBUTES:-200} \
	$(TRIALS) repo::concurrent:: repo::attributes::

hostile-servers: deps  ## spoiled answers of git and Bitbucket during whole runs: TRAINSPOT_HOSTILE_SERVERS, TRAINSPOT_SEED
	TRAINSPOT_HOSTILE_SERVERS=$${TRAINSPOT_HOSTILE_SERVERS:-1000} $(TRIALS) hostile_servers::

hostile: deps  ## attacks on the pipe by its machine, and answers of an agent changed at random over whole runs: TRAINSPOT_MUTATIONS, TRAINSPOT_SEED
	TRAINSPOT_MUTATIONS=$${TRAINSPOT_MUTATIONS:-300} cargo test --locked --test hostile

fuzz: deps  ## inputs of libFuzzer's making for what reads the words of others: FUZZ_RUNS for each target, FUZZ_SEED; needs a C++ compiler
	scripts/fuzz.sh

# Crates whose unit tests are built and run in seconds.
MUTANTS_CRATES = base http protocol transfer report

mutants: deps  ## changes of the small crates' code that no unit test notices; takes hours, and needs cargo-mutants; MUTANTS holds its arguments
	@for crate in $(MUTANTS_CRATES); do \
		echo "==> $$crate"; mkdir -p build/mutants/$$crate; \
		cargo mutants --package trainspot-$$crate --output build/mutants/$$crate --jobs 1 --timeout 60 $(MUTANTS) -- --lib --locked || failed=1; \
	done; exit $${failed:-0}

# As the compiler of our own crates: `cargo clippy` would check every dependency once more, minutes for the AWS SDK.
CLIPPY = RUSTC_WORKSPACE_WRAPPER=$$(rustc --print sysroot)/bin/clippy-driver cargo build

check: deps docs style  ## format, lints, licences, documentation
	cargo fmt --all --check
	$(CLIPPY) --workspace --all-targets --locked
	@# The pipe without EC2. With the whole workspace, so that dependencies have the features that they have above.
	$(CLIPPY) --workspace --all-targets --no-default-features --locked
	@# Without the advisories, which need the network: `cargo deny check advisories`.
	@if cargo deny --version >/dev/null 2>&1; then set -x; cargo deny --locked check bans licenses sources; \
	else echo "cargo-deny is not installed: licences and sources of dependencies are not checked"; fi

style:  ## names, circles between modules, long files and comments: what neither rustfmt nor Clippy checks
	scripts/check_style.py

audit:  ## known weaknesses, licences and sources of dependencies; needs the network, and cargo-deny (`cargo install cargo-deny`)
	cargo deny --locked check

docs: deps  ## every Pipelines example against Bitbucket's schema, and the CloudFormation template
	$$(scripts/venv.sh docs scripts/requirements.txt)/python scripts/check_docs.py
	$$(scripts/venv.sh docs scripts/requirements.txt)/python scripts/check_wake.py

image: deps  ## the pipe's image, from a release build on this machine
	scripts/image.sh

bench: deps  ## time and memory beside git, tar, cp, scp and DVC; takes about 15 minutes once built, and a few more for an S3 the first time
	cargo build --release --workspace --bins --locked
	python3 scripts/bench.py $${CARGO_TARGET_DIR:-target}/$$(rustc -vV | sed -n 's/^host: //p')/release
	python3 scripts/bench_dvc.py $${CARGO_TARGET_DIR:-target}/$$(rustc -vV | sed -n 's/^host: //p')/release/trainspot

deps:
	@scripts/deps.sh

clean:
	rm -rf build
	cargo clean
