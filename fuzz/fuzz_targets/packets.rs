//! Looks for an answer of a git server of which `trainspot_git::fuzzing::packets` does not hold.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| trainspot_git::fuzzing::packets(input));
