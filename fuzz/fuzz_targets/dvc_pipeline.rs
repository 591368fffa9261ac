//! Looks for a `dvc.yaml` and a `dvc.lock` of which `trainspot_dvc::fuzzing::pipeline` does not hold.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| trainspot_dvc::fuzzing::pipeline(input));
