//! Looks for a `.dvc/config` of which `trainspot_dvc::fuzzing::config` does not hold.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| trainspot_dvc::fuzzing::config(input));
