//! Looks for a `.dvc` file of which `trainspot_dvc::fuzzing::pointer` does not hold.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| trainspot_dvc::fuzzing::pointer(input));
