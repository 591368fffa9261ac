//! Looks for a metrics file of which `trainspot_report::fuzzing::metrics` does not hold.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| trainspot_report::fuzzing::metrics(input));
