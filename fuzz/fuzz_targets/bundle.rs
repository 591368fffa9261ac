//! Looks for a bundle of which `trainspot_transfer::fuzzing::Receivers` do not hold.

#![no_main]

use std::sync::LazyLock;
use tempfile::TempDir;
use trainspot_transfer::fuzzing::Receivers;

/// Where the files arrive. A process of libFuzzer ends without dropping it; `scripts/fuzz.sh` removes it.
static FOLDER: LazyLock<TempDir> = LazyLock::new(|| tempfile::tempdir().expect("a folder for files"));
static RECEIVERS: LazyLock<Receivers> = LazyLock::new(|| Receivers::new(FOLDER.path()));

libfuzzer_sys::fuzz_target!(|input: &[u8]| RECEIVERS.receive(input));
