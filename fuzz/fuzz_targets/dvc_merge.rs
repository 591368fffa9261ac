//! Looks for two changes of a file of DVC's of which `trainspot_git::fuzzing::merge` does not hold.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| trainspot_git::fuzzing::merge(input));
