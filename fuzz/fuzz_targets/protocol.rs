//! Looks for a message of or to an agent of which `trainspot_compute::link::fuzzing::protocol` does not hold,
//! or `trainspot_dvc::fuzzing::store` for what DVC keeps.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| match input {
    [b'4', message @ ..] => trainspot_dvc::fuzzing::store(message),
    message => trainspot_compute::link::fuzzing::protocol(message),
});
