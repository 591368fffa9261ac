//! Looks for a runner's log of which `trainspot_protocol::fuzzing::runner_log` does not hold.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| trainspot_protocol::fuzzing::runner_log(input));
